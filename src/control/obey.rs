//! The commands of the operator, carried out.

use super::Control;
use super::admin::AdminCommand;

impl Control {
    /// Carries out a command. The answer is dropped if its caller has gone.
    pub(super) async fn obey(&mut self, command: AdminCommand) {
        match command {
            AdminCommand::Reload { origin, reply } => {
                let verdict = self.reload(origin).await;
                let _ = reply.send(verdict);
            }
            AdminCommand::Certificates { host, accept, installed, reply } => {
                let verdict = self.look_at_site(&host, accept, installed).await;
                let _ = reply.send(verdict);
            }
            AdminCommand::Ready { strict, reply } => {
                _ = reply.send(if strict { self.strictly_ready() } else { Ok(()) })
            }
            AdminCommand::Upgrade(reply) => self.begin_upgrade(Some(reply)).await,
            AdminCommand::Status(reply) => _ = reply.send(self.status()),
            AdminCommand::Metrics { format, reply } => _ = reply.send(self.metrics(format)),
            AdminCommand::Ledger { records, reply } => {
                let result = self.merge(records).await;
                let _ = reply.send(result);
            }
            AdminCommand::Promise { records, reply } => {
                let result = self.promise(records).await;
                let _ = reply.send(result);
            }
            AdminCommand::Served(reply) => _ = reply.send(self.served()),
            AdminCommand::Judge { asked, reply } => _ = reply.send(self.judge_certificate(&asked)),
            AdminCommand::Promised { site, reply } => _ = reply.send(self.promised(&site)),
            AdminCommand::Explain { asked, shows_secrets, reply } => {
                let report = self.explain(&asked, shows_secrets).await;
                let _ = reply.send(report);
            }
            AdminCommand::Records(reply) => _ = reply.send(self.kept_records()),
            AdminCommand::ExplainRecord { record, shows_secrets, reply } => {
                let explained = self.explain_record(&record, shows_secrets).await;
                let _ = reply.send(explained);
            }
            AdminCommand::Keys { wanted, reply } => _ = reply.send(self.keys(&wanted)),
            AdminCommand::Outline(reply) => _ = reply.send(self.outline()),
            AdminCommand::Config(reply) => self.config_in_use(reply),
            AdminCommand::CheckConfig { text, reply } => _ = reply.send(self.check_config(text)),
            AdminCommand::ChangeConfig { change, reply } => {
                let changed = self.change_config(*change).await;
                let _ = reply.send(changed);
            }
            AdminCommand::Install(step) => self.obey_install(step).await,
            AdminCommand::Acme(asked) => self.ask_acme(asked),
            AdminCommand::TestHooks { name, reply } => self.test_hooks(name.as_deref(), reply),
            AdminCommand::View { question, reply } => _ = reply.send(self.view(question)),
            AdminCommand::Findings { report, reply } => self.keep_findings(report, reply),
            AdminCommand::Cache { call, reply } => _ = reply.send(self.cache(&call)),
            AdminCommand::Purge { call, reply } => self.purge(&call, reply),
            AdminCommand::Book(reply) => {
                // The caller reads the file, too.
                let _ = self.keep_ledger().await;
                let _ = reply.send(self.known());
            }
        }
    }
}
