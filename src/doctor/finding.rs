//! Findings: evidence, verdict, remedy.

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingSeverity {
    /// It will cause trouble, or makes it worse.
    Warning,
    /// It breaks something now, or at the next boot.
    Fault,
}

impl FindingSeverity {
    /// Returns the word for people and programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// A remedy: its purpose, and the commands to paste into a root shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// The purpose, or what to do where no command can.
    pub text: String,
    /// The commands.
    pub run: Vec<String>,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The stable name of the finding, as programs know it: `sysctl.drift`.
    pub id: &'static str,
    /// The thing that it is about: a key, an address, a device.
    pub subject: String,
    /// The severity.
    pub verdict: FindingSeverity,
    /// The fault, in one line.
    pub what: String,
    /// The facts that it rests on.
    pub evidence: Vec<String>,
    /// The remedies, in their order.
    pub remedies: Vec<Remedy>,
}

impl Finding {
    /// A finding without evidence and remedy.
    pub fn new(
        id: &'static str,
        verdict: FindingSeverity,
        subject: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self { id, subject: subject.into(), verdict, what: what.into(), evidence: Vec::new(), remedies: Vec::new() }
    }

    /// A finding that breaks something.
    pub fn fault(id: &'static str, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(id, FindingSeverity::Fault, subject, what)
    }

    /// A finding that will cause trouble.
    pub fn warning(id: &'static str, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(id, FindingSeverity::Warning, subject, what)
    }

    /// Adds a fact.
    #[must_use]
    pub fn evidence(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }

    /// Adds facts.
    #[must_use]
    pub fn evidences(mut self, facts: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(facts);
        self
    }

    /// Adds a remedy with its commands.
    #[must_use]
    pub fn remedy<R: Into<String>>(mut self, text: impl Into<String>, run: impl IntoIterator<Item = R>) -> Self {
        self.remedies.push(Remedy { text: text.into(), run: run.into_iter().map(Into::into).collect() });
        self
    }

    /// Adds a remedy that no command can carry out.
    #[must_use]
    pub fn advice(self, text: impl Into<String>) -> Self {
        self.remedy(text, <[String; 0]>::default())
    }
}

/// A check that could not see what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The check.
    pub check: &'static str,
    /// The missing permission or fact: `root`.
    pub needs: String,
}

/// The results of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckResults {
    /// Its findings.
    pub findings: Vec<Finding>,
    /// The needs of parts that could not be judged.
    pub unknown: Vec<String>,
}

impl CheckResults {
    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes a part that could not be judged.
    pub fn needs(&mut self, what: impl Into<String>) {
        self.unknown.push(what.into());
    }
}

impl From<Vec<Finding>> for CheckResults {
    fn from(findings: Vec<Finding>) -> Self {
        Self { findings, unknown: Vec::new() }
    }
}
