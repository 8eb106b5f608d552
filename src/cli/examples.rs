//! The examples at the end of every `--help` and man page. A test parses each command line.

use clap::Command;

/// An example: its purpose, and the line to type.
pub(super) type Example = (&'static str, &'static str);

/// The examples of each command, by its path without `pintle`; the empty path is pintle itself.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("Try pintle without any configuration", "pintle demo"),
            (
                "Write a configuration for a hosted blog",
                "pintle init https://example.wordpress.com --host blog.example.com",
            ),
            ("Check the configuration, then serve it", "pintle check && sudo pintle run"),
            ("Look at any site as a strict client does", "pintle verify https://blog.example.com/"),
        ],
    ),
    (
        "demo",
        &[
            ("Serve the demo at https://localhost:8443", "pintle demo"),
            (
                "Use other ports, and keep the demo's files",
                "pintle demo --https-port 9443 --http-port 9080 --dir ./demo",
            ),
        ],
    ),
    (
        "run",
        &[
            ("Serve config/pintle.toml, or /etc/pintle/pintle.toml", "sudo pintle run"),
            ("Serve another file, and write the log as JSON", "pintle run -c blog.toml --log-format json"),
        ],
    ),
    (
        "check",
        &[
            ("Check the file of the service", "sudo pintle check -c /etc/pintle/pintle.toml"),
            ("Try the upstreams, too: names, ports, certificates", "pintle check --connect"),
            ("Count the problems, for a program", "pintle check --json | jq '.problems | length'"),
        ],
    ),
    (
        "config",
        &[
            ("Show what a reload would change", "pintle config diff"),
            ("Undo the last change", "pintle config restore HEAD~1"),
        ],
    ),
    (
        "config history",
        &[
            ("List the last versions", "pintle config history"),
            (
                "Print the ids of the last hundred, for a program",
                "pintle config history -n 100 --json | jq -r '.versions[].id'",
            ),
        ],
    ),
    (
        "config show",
        &[
            ("Print a version", "pintle config show 1a2b3c4d5e"),
            ("Print the version before the newest", "pintle config show HEAD~1"),
        ],
    ),
    (
        "config diff",
        &[
            ("Compare the text in use with the file", "pintle config diff"),
            ("Compare the two newest versions", "pintle config diff HEAD~1 HEAD"),
        ],
    ),
    (
        "config apply",
        &[
            ("Change the configuration of the service, or nothing", "sudo pintle config apply new.toml"),
            ("Only ask for the verdict", "pintle config apply new.toml --dry-run"),
            (
                "Apply a change that needs folders or ports outside the sandbox",
                "sudo pintle config apply new.toml --upgrade",
            ),
            ("Change one word", "sed 's/30d/60d/' pintle.toml | pintle config apply - -c pintle.toml"),
        ],
    ),
    (
        "config restore",
        &[
            ("Undo the last change", "sudo pintle config restore HEAD~1"),
            ("See what it would change", "pintle config restore 1a2b3c4d5e --dry-run"),
        ],
    ),
    (
        "doctor",
        &[
            ("Check this host, including facts that only root sees", "sudo pintle doctor"),
            ("Watch neighbours, counters and upstreams", "pintle doctor --watch 2s"),
            (
                "Watch, with metrics for node_exporter",
                "pintle doctor --watch 1m --metrics /var/lib/prometheus/node-exporter/pintle_doctor.prom",
            ),
            ("Print the commands that repair it", "pintle doctor --json | jq -r '.findings[].remedies[].run[]'"),
        ],
    ),
    (
        "purge",
        &[
            ("Purge a page, with all its variants", "pintle purge https://blog.example.com/2026/a-post/"),
            ("Purge everything below a path", "pintle purge --prefix https://blog.example.com/2026"),
            ("Have all pages of a site validated before their next use", "pintle purge --site blog.example.com --soft"),
        ],
    ),
    (
        "cache",
        &[
            ("Show the sizes and hit rates of all caches", "pintle cache"),
            ("Show what is stored of a page, or why nothing is", "pintle cache https://blog.example.com/"),
        ],
    ),
    (
        "hook",
        &[("Test all hooks", "pintle hook test"), ("Test one, by its name", "pintle hook test hooks.example.com")],
    ),
    (
        "hook test",
        &[("Test all hooks", "pintle hook test"), ("Test one, by its name", "pintle hook test hooks.example.com")],
    ),
    (
        "pin",
        &[
            ("Print the pins of a chain and of a CSR for the next key", "pintle pin blog.pem blog-next.csr"),
            (
                "Print the pin of the key that a server uses now",
                "openssl s_client -connect blog.example.com:443 </dev/null | pintle pin -",
            ),
            ("Print the value for curl --pinnedpubkey", "pintle pin --as curl blog.pem blog-next.csr"),
        ],
    ),
    (
        "export",
        &[
            (
                "Write Android's Network Security Config",
                "pintle export --site blog.example.com --as android --out network_security_config.xml",
            ),
            ("Print the TLSA records for DANE", "pintle export --site blog.example.com --as tlsa"),
        ],
    ),
    (
        "key",
        &[
            ("Make the next key of a site, with its CSR", "pintle key new --role next --site blog.example.com"),
            ("List the keys of all sites", "pintle key list"),
        ],
    ),
    (
        "key new",
        &[
            ("Make the next key beside the site's certificate", "pintle key new --role next --site blog.example.com"),
            (
                "Make a spare RSA key on another medium",
                "pintle key new --role spare --site blog.example.com --algorithm rsa-2048 --out /media/safe",
            ),
        ],
    ),
    (
        "key list",
        &[
            ("List the keys of all sites", "pintle key list"),
            ("List the keys of one site, for a program", "pintle key list --site blog.example.com --json"),
        ],
    ),
    (
        "key rotate",
        &[("Change over to the next key once all clients know it", "pintle key rotate --site blog.example.com")],
    ),
    (
        "key revoke",
        &[
            ("Show the effects, change nothing", "pintle key revoke --site blog.example.com --dry-run"),
            ("Replace and revoke the live key, which was stolen", "pintle key revoke --site blog.example.com"),
            (
                "The same, and lock out clients that do not know the next key",
                "pintle key revoke --site blog.example.com --accept-lockout-until 2026-12-24",
            ),
        ],
    ),
    ("acme", &[("Show when pintle orders each certificate, and why", "pintle acme plan")]),
    (
        "acme plan",
        &[
            ("Show when pintle orders each certificate, and why", "pintle acme plan"),
            ("The same for a program", "pintle acme plan --json"),
        ],
    ),
    (
        "acme renew",
        &[
            ("Order the certificate of a site now", "pintle acme renew --site blog.example.com"),
            (
                "The same although the check of the names fails: the CA sees other addresses than this host",
                "pintle acme renew --site blog.example.com --despite-preflight",
            ),
        ],
    ),
    ("acme account", &[("Show the URL that CAA records name as accounturi", "pintle acme account")]),
    (
        "init",
        &[
            (
                "Write the configuration for a blog",
                "sudo pintle init https://example.wordpress.com --host blog.example.com",
            ),
            (
                "The same with certificates from Let's Encrypt; asks whether you agree to its terms",
                "sudo pintle init https://example.wordpress.com --host blog.example.com --email a@example.com",
            ),
            (
                "Print the configuration for a server of your own",
                "pintle init http://10.0.0.5:8080 --host blog.example.com --dry-run",
            ),
            (
                "A blog whose name already points to this machine",
                "pintle init https://blog.example.com --host blog.example.com --connect 192.0.2.80",
            ),
        ],
    ),
    (
        "explain",
        &[
            ("Explain a page", "pintle explain https://blog.example.com/page"),
            (
                "The same behind a balancer that ends TLS",
                "pintle explain https://blog.example.com/ --http --from 10.0.0.1 -H 'X-Forwarded-Proto:https'",
            ),
            ("Why does the running process send no pins?", "sudo pintle explain https://blog.example.com/ --live"),
            (
                "Why did this request end with an error? The id is that of its log record",
                "sudo pintle explain --request 5f3a09c1-0-42",
            ),
            (
                "A browser asks for one site over the HTTP/2 connection of another one",
                "pintle explain https://www.example.com/ --http2 --sni blog.example.com",
            ),
            ("Print the site that a name leads to", "pintle explain https://www.example.com/ --json | jq -r .site"),
        ],
    ),
    (
        "page",
        &[
            ("Open the pages of the service", "sudo pintle page"),
            (
                "Print a view-only link for a colleague, at a port that ssh forwards",
                "sudo pintle page --role view --port 9181",
            ),
        ],
    ),
    ("admin", &[("Set the password of the pages", "pintle admin password")]),
    (
        "admin password",
        &[
            ("Print the line for [admin] in the configuration", "pintle admin password"),
            ("The same for a password manager", "pass show edge-1 | pintle admin password --json"),
        ],
    ),
    (
        "install",
        &[
            (
                "Ask for the verdict about a renewed certificate",
                "pintle install --site blog.example.com renewed.pem --dry-run",
            ),
            ("Install it with its key", "sudo pintle install --site blog.example.com renewed.pem renewed.key"),
            ("Bring back the pair that it replaced", "sudo pintle install --previous --site blog.example.com"),
        ],
    ),
    (
        "ledger",
        &[
            ("Show all promises", "pintle ledger show"),
            ("Add the promises of another node", "pintle ledger merge other/ledger.jsonl"),
        ],
    ),
    (
        "ledger show",
        &[
            ("Show all promises as a table and a timeline", "pintle ledger show"),
            ("Print them for a program", "pintle ledger show --json"),
        ],
    ),
    (
        "ledger repair",
        &[
            ("Show the damage, and how it would be repaired", "pintle ledger repair"),
            (
                "Repair it, and accept that promises may be lost",
                "sudo pintle ledger repair --accept-loss 2027-01-31 --yes",
            ),
        ],
    ),
    (
        "ledger merge",
        &[
            ("Print the effects", "pintle ledger merge other/ledger.jsonl --dry-run"),
            ("Add the promises of two nodes", "sudo pintle ledger merge one/ledger.jsonl two/ledger.jsonl"),
        ],
    ),
    (
        "ledger decline",
        &[(
            "Do not count the promises of a test in the folder beside it",
            "sudo pintle ledger decline /var/lib/pintle-test/ledger.jsonl",
        )],
    ),
    (
        "reload",
        &[
            ("Apply the changed configuration of the service", "sudo pintle reload"),
            ("Do it from a program", "sudo pintle reload -c /etc/pintle/pintle.toml --json"),
        ],
    ),
    (
        "upgrade",
        &[
            ("Start the new version of the program, without a dropped connection", "sudo pintle upgrade"),
            ("Do it from a program", "sudo pintle upgrade -c /etc/pintle/pintle.toml --json"),
        ],
    ),
    (
        "status",
        &[
            ("Show the state of the service", "sudo pintle status"),
            ("Watch rates, upstreams and certificates", "sudo pintle status --watch"),
            ("Fail if something needs attention, for a monitor", "sudo pintle status --exit-code"),
            ("Print the version that serves", "sudo pintle status --json | jq -r .version"),
        ],
    ),
    (
        "health",
        &[
            ("Check the service, as a container's health check does", "pintle health"),
            ("Wait until it serves", "until pintle health; do sleep 1; done"),
        ],
    ),
    (
        "verify",
        &[
            ("Check a site", "pintle verify https://blog.example.com/"),
            (
                "Check a server before its name points to it",
                "pintle verify https://blog.example.com/ --connect 192.0.2.7:443",
            ),
            ("Check the demo", "pintle verify https://localhost:8443/ --ca ca.pem --connect-http 127.0.0.1:8080"),
        ],
    ),
    (
        "completions",
        &[
            ("Complete in this bash session", "source <(pintle completions bash)"),
            (
                "Install the completions for zsh",
                "pintle completions zsh | sudo tee /usr/local/share/zsh/site-functions/_pintle",
            ),
            ("Install the completions for fish", "pintle completions fish > ~/.config/fish/completions/pintle.fish"),
        ],
    ),
    (
        "man",
        &[
            ("Read the page about the configuration file", "pintle man pintle.toml | man -l -"),
            ("Install all pages", "sudo pintle man --dir /usr/local/share/man"),
        ],
    ),
];

/// The examples of a command, by its path without `pintle`.
pub(super) fn of(path: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(of, _)| *of == path).map_or(&[], |(_, examples)| examples)
}

/// Adds the examples to the help text of a command and of all commands below it.
pub(super) fn add(command: Command, path: &str) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = below.into_iter().fold(command, |command, name| {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command.mut_subcommand(name, |below| add(below, &path))
    });
    match of(path) {
        [] => command,
        examples => command.after_help(help(examples)),
    }
}

fn help(examples: &[Example]) -> String {
    let lines = examples.iter().map(|(purpose, line)| format!("\n  # {purpose}\n  {line}"));
    format!("Examples:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    /// The words of the parts of a line that start pintle.
    fn calls(line: &str) -> Vec<Vec<String>> {
        let parts = line.split(['|', ';', '(', ')', '>']).flat_map(|part| part.split("&&"));
        let words = parts.map(|part| part.split_whitespace().map(|word| word.trim_matches('\'').to_owned()));
        let from_pintle = words.map(|words| words.skip_while(|word| word != "pintle").collect::<Vec<_>>());
        from_pintle.filter(|words| !words.is_empty()).collect()
    }

    fn visit(command: &Command, path: &str, seen: &mut Vec<String>) {
        let name = if path.is_empty() { "pintle".to_owned() } else { format!("pintle {path}") };
        if !command.is_hide_set() && command.get_name() != "help" {
            let examples = of(path);
            assert!(!examples.is_empty(), "`{name} --help` has no examples: add them in src/cli/examples.rs");
            let help = command.clone().render_long_help().to_string();
            for (purpose, line) in examples {
                assert!(help.contains(&format!("# {purpose}\n  {line}")), "{help}");
                let calls = calls(line);
                let own: Vec<_> = path.split_whitespace().collect();
                assert!(
                    calls.iter().any(|words| own.iter().zip(&words[1..]).all(|(one, other)| one == other)),
                    "{name}: {line}"
                );
                for words in calls {
                    if let Err(error) = super::super::command().try_get_matches_from(&words) {
                        panic!("{name}: {line}\n{error}");
                    }
                }
            }
            seen.push(path.to_owned());
            for below in command.get_subcommands() {
                visit(below, format!("{path} {}", below.get_name()).trim(), seen);
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut seen = Vec::new();
        visit(&command(), "", &mut seen);
        let forgotten: Vec<_> =
            EXAMPLES.iter().map(|(path, _)| *path).filter(|path| !seen.iter().any(|s| s == path)).collect();
        assert!(forgotten.is_empty(), "examples of commands that there are not: {forgotten:?}");
        assert!(seen.len() > 15, "{seen:?}");
    }

    #[test]
    fn a_wrong_example_is_found() {
        for line in ["pintle cheque", "pintle key new --role nxt", "true && sudo pintle run --no-such-option"] {
            let calls = calls(line);
            assert_eq!(calls.len(), 1, "{line}");
            assert!(command().try_get_matches_from(&calls[0]).is_err(), "{line}");
        }
    }
}
