//! WordPress with its database and PHP, as a reader and as its author.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;

use crate::harness::{
    Authority, BLOG, Browser, Pintle, Program, blog_at, eventually, free_port, nginx, outcome, output, program,
};

pub(super) const USER: &str = "author";
pub(super) const PASSWORD: &str = "correct horse battery staple";

/// MariaDB, PHP-FPM, nginx and WordPress, in a folder of the test's own.
pub(super) struct WordPress {
    pub(super) port: u16,
    folder: PathBuf,
    database: Option<Program>,
    _programs: Vec<Program>,
}

impl WordPress {
    /// WordPress that believes X-Forwarded-Proto.
    pub(super) fn start(folder: &Path) -> Self {
        Self::with(folder, HTTPS_LINE)
    }

    /// WordPress with a line in its configuration.
    pub(super) fn with(folder: &Path, line: &str) -> Self {
        let root = folder.join("wordpress");
        output(Command::new("cp").args(["--recursive", "--dereference", "/usr/share/wordpress"]).arg(&root));
        fs::create_dir_all(root.join("wp-content/uploads")).unwrap();
        fs::write(root.join("wp-config.php"), config(folder, line)).unwrap();
        install_database(folder);
        let database = Some(run_database(folder));
        let php = php(folder);
        let port = free_port();
        let server = format!(
            "include /etc/nginx/mime.types;\nserver {{ listen 127.0.0.1:{port}; root {root}; index index.php;\n\
             location / {{ try_files $uri $uri/ /index.php?$args; }}\n\
             location ~ \\.php$ {{ include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n\
             fastcgi_pass unix:{socket}; }} }}",
            root = root.display(),
            socket = folder.join("php.sock").display()
        );
        let web = nginx(folder, port, &server);
        Self { port, folder: folder.to_owned(), database, _programs: vec![web, php] }
    }

    pub(super) fn stop_database(&mut self) {
        self.database = None;
    }

    pub(super) fn start_database(&mut self) {
        self.database = Some(run_database(&self.folder));
    }

    /// Runs a statement as the database's operator.
    pub(super) fn sql(&self, statement: &str) {
        assert_eq!(sql(&self.folder, statement), 0, "{statement}");
    }
}

/// Installs a blog through pintle, as an operator would.
pub(super) fn install(curl: &dyn Fn(&[&str], &str) -> String) {
    let (user, password) = (format!("user_name={USER}"), format!("admin_password={PASSWORD}"));
    let again = format!("admin_password2={PASSWORD}");
    let values = ["weblog_title=A real blog", &user, &password, &again, "pw_weak=on", "admin_email=author@example.com"];
    let form: Vec<&str> = values.iter().chain(&["language="]).flat_map(|value| ["--data-urlencode", *value]).collect();
    let installed = curl(&form, "/wp-admin/install.php?step=2");
    assert!(installed.contains("Success!"), "{installed}");
}

/// The line of WordPress' manual for a site behind a proxy that ends TLS.
const HTTPS_LINE: &str = "if (isset($_SERVER['HTTP_X_FORWARDED_PROTO']) && $_SERVER['HTTP_X_FORWARDED_PROTO'] === 'https') \
    { $_SERVER['HTTPS'] = 'on'; }";

fn config(folder: &Path, line: &str) -> String {
    format!(
        "<?php\n{line}\n\
         define('DB_NAME', 'wordpress'); define('DB_USER', 'root'); define('DB_PASSWORD', '');\n\
         define('DB_HOST', 'localhost:{}'); define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');\n\
         define('WP_HTTP_BLOCK_EXTERNAL', true); define('DISABLE_WP_CRON', true); define('AUTOMATIC_UPDATER_DISABLED', true);\n\
         define('AUTH_KEY', 'a'); define('SECURE_AUTH_KEY', 'b'); define('LOGGED_IN_KEY', 'c'); define('NONCE_KEY', 'd');\n\
         $table_prefix = 'wp_';\nif (!defined('ABSPATH')) {{ define('ABSPATH', __DIR__ . '/'); }}\nrequire_once ABSPATH . 'wp-settings.php';\n",
        folder.join("db.sock").display()
    )
}

fn database_user() -> &'static str {
    if rustix::process::getuid().is_root() { "--user=root" } else { "--skip-name-resolve" }
}

fn sql(folder: &Path, statement: &str) -> i32 {
    let socket = format!("--socket={}", folder.join("db.sock").display());
    let arguments = ["--no-defaults", &socket, "--user=root", "-e", statement];
    outcome(Command::new(program("mariadb")).args(arguments)).0
}

fn install_database(folder: &Path) {
    let (data, user) = (folder.join("db"), database_user());
    output(
        Command::new(program("mariadb-install-db"))
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", user])
            .arg(format!("--datadir={}", data.display())),
    );
}

fn run_database(folder: &Path) -> Program {
    let (data, user, socket) = (folder.join("db"), database_user(), folder.join("db.sock"));
    let mut command = Command::new(program("mariadbd"));
    command
        .args([
            "--no-defaults",
            "--skip-networking",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=0",
            user,
        ])
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", folder.join("db.pid").display()));
    let database = Program::start(&mut command, folder, "mariadb");
    eventually("the database answers", || (sql(folder, "CREATE DATABASE IF NOT EXISTS wordpress") == 0).then_some(()));
    database
}

fn php(folder: &Path) -> Program {
    let found = ["/usr/sbin", "/usr/bin"].iter().flat_map(|d| fs::read_dir(d).unwrap().flatten()).map(|e| e.path());
    let fpm: PathBuf = found
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("php-fpm")))
        .min()
        .expect("php-fpm is not installed; tests/run installs what the tests need");
    let socket = folder.join("php.sock");
    let file = folder.join("php-fpm.conf");
    let pool = format!(
        "[global]\nerror_log = /proc/self/fd/2\ndaemonize = no\n[www]\nlisten = {}\nlisten.mode = 0666\npm = static\npm.max_children = 4\n\
         user = root\ngroup = root\nphp_admin_value[upload_max_filesize] = 20M\nphp_admin_value[post_max_size] = 20M\n",
        socket.display()
    );
    fs::write(&file, pool).unwrap();
    let mut command = Command::new(fpm);
    command.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]).arg(&file);
    let php = Program::start(&mut command, folder, "php-fpm");
    eventually("PHP listens", || socket.exists().then_some(()));
    php
}

/// A PNG of one colour, too large to be inlined anywhere.
fn picture() -> Vec<u8> {
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEklEQVR4nGNgaPgPRDAKSAAANscF+3wVxJAAAAAASUVORK5CYII=";
    base64::engine::general_purpose::STANDARD.decode(png).unwrap()
}

#[test]
fn a_blog_with_its_author_and_its_readers() {
    let authority = Authority::new();
    let wordpress = WordPress::start(authority.folder());
    // Ten lines, as in the README.
    let config =
        blog_at(&authority, &format!("http://127.0.0.1:{}", wordpress.port)) + "[site.hsts]\nmax_age = \"1y\"\n";
    let pintle = Pintle::start(&authority, &config);
    let url = |path: &str| format!("https://{BLOG}{path}");
    let jar = authority.folder().join("cookies");
    let jar = jar.to_str().unwrap();
    let curl = |arguments: &[&str], path: &str| {
        output(pintle.curl().args(["--max-time", "60"]).args(arguments).arg(url(path)))
    };

    install(&curl);

    // The front page, by each protocol, from plain HTTP on; no loop, nothing by http on it.
    for version in ["--http1.1", "--http2"] {
        let options = [
            version,
            "--location",
            "--max-redirs",
            "3",
            "--write-out",
            "\n%{num_redirects} %{http_code} %{url_effective}",
        ];
        let page = output(pintle.curl().args(options).arg(format!("http://{BLOG}/")));
        assert!(page.contains("Hello world!") && page.ends_with(&format!("1 200 https://{BLOG}/")), "{page}");
        assert!(!page.contains(&format!("http://{BLOG}")) && !page.contains("http://127.0.0.1"), "{page}");
    }

    // A login: cookies are set for the site's name, secure, and lead to the dashboard.
    let login = ["--include", "--cookie-jar", jar, "--cookie", "wordpress_test_cookie=WP%20Cookie%20check"];
    let credentials = [
        "--data-urlencode",
        &format!("log={USER}"),
        "--data-urlencode",
        &format!("pwd={PASSWORD}"),
        "--data",
        "testcookie=1",
    ];
    let answer = curl(&[&login[..], &credentials[..]].concat(), "/wp-login.php");
    let lower = answer.to_ascii_lowercase();
    assert!(lower.contains(&format!("location: https://{BLOG}/wp-admin/\r\n")), "{answer}");
    let cookies: Vec<&str> = lower.lines().filter(|l| l.starts_with("set-cookie: ")).collect();
    assert!(!cookies.is_empty() && cookies.iter().all(|c| c.contains("secure")), "{cookies:?}");
    let dashboard = curl(&["--cookie", jar, "--location"], "/wp-admin/");
    assert!(dashboard.contains("<title>Dashboard"), "{dashboard}");

    // An uploaded picture comes back as it was, and a post shows it.
    let encoded = base64::engine::general_purpose::STANDARD.encode(picture());
    let call = |method: &str, argument: &str| {
        let request = format!(
            "<methodCall><methodName>{method}</methodName><params><param><value>1</value></param><param><value>{USER}</value></param>\
             <param><value>{PASSWORD}</value></param><param><value><struct>{argument}</struct></value></param></params></methodCall>"
        );
        let file = authority.write("call.xml", request);
        curl(&["--data-binary", &format!("@{}", file.display()), "--header", "Content-Type: text/xml"], "/xmlrpc.php")
    };
    let member = |name: &str, value: &str| format!("<member><name>{name}</name><value>{value}</value></member>");
    let upload = member("name", "dot.png")
        + &member("type", "image/png")
        + &member("bits", &format!("<base64>{encoded}</base64>"));
    let uploaded = call("wp.uploadFile", &upload);
    let image = uploaded
        .split("<string>")
        .find_map(|s| s.split("</string>").next().filter(|s| s.ends_with("dot.png") && s.starts_with("http")))
        .unwrap_or_else(|| panic!("{uploaded}"));
    assert!(image.starts_with(&format!("https://{BLOG}/wp-content/uploads/")), "{image}");
    let got = authority.folder().join("got.png");
    output(pintle.curl().arg("--output").arg(&got).arg(image));
    assert_eq!(fs::read(got).unwrap(), picture());
    let post = member("post_title", "A picture")
        + &member("post_status", "publish")
        + &member("post_content", &format!("&lt;img id=\"dot\" src=\"{image}\"&gt;"));
    let posted = call("wp.newPost", &post);
    let number: String = posted
        .split("<string>")
        .nth(1)
        .unwrap_or_else(|| panic!("{posted}"))
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();

    // The same in a browser.
    let browser = Browser::start(&authority, pintle.https(), pintle.http());
    browser.go(&format!("http://{BLOG}/"));
    assert_eq!((browser.url(), browser.title()), (url("/"), "A real blog".to_owned()));
    browser.go(&url(&format!("/?p={number}")));
    assert_eq!(browser.evaluate("document.getElementById('dot').naturalWidth"), 2);
    browser.go(&url("/wp-login.php"));
    browser.fill("#user_login", USER);
    browser.fill("#user_pass", PASSWORD);
    browser.click("#wp-submit");
    eventually("the dashboard", || browser.title().starts_with("Dashboard").then_some(()));
    assert_eq!(browser.url(), url("/wp-admin/"));
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        browser.screenshot(&Path::new(&folder).join("wordpress.png"));
    }
    let requests = browser.requests();
    assert!(requests.len() > 10, "{requests:?}");
    let by_http: Vec<_> =
        requests.iter().filter(|u| u.starts_with("http://") && **u != format!("http://{BLOG}/")).collect();
    assert!(by_http.is_empty(), "{by_http:?}");
    let complaints: Vec<_> =
        browser.complaints().into_iter().filter(|c| c.contains("Mixed Content") || c.contains("REDIRECT")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    // No failure was logged.
    let failed: Vec<_> = pintle.access().into_iter().filter(|l| l["status"].as_u64() >= Some(500)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A blog that believes to be on http, as it was before it had a certificate: pintle rewrites its references, and changes
/// nothing else.
#[test]
fn a_blog_that_knows_no_https() {
    let authority = Authority::new();
    let home = format!("define('WP_HOME', 'http://{BLOG}'); define('WP_SITEURL', 'http://{BLOG}');");
    let wordpress = WordPress::with(authority.folder(), &home);
    let tools = "[site.mixed_content]\nmode = [\"report\", \"rewrite\"]\n[site.compression]\n";
    let config = blog_at(&authority, &format!("http://127.0.0.1:{}", wordpress.port)) + tools;
    let pintle = Pintle::start(&authority, &config);
    let url = |path: &str| format!("https://{BLOG}{path}");
    let curl = |arguments: &[&str], path: &str| {
        output(pintle.curl().args(["--max-time", "60"]).args(arguments).arg(url(path)))
    };
    install(&curl);

    // The same bytes as from WordPress itself, but for the scheme of its own references.
    let direct = |path: &str| {
        let to = format!("http://127.0.0.1:{}{path}", wordpress.port);
        output(Command::new("curl").args(["--silent", "--header", &format!("Host: {BLOG}"), &to]))
    };
    let by_http = [format!("http://{BLOG}"), format!("http:\\/\\/{BLOG}")];
    let plain = |page: &str| {
        let escaped = page.replace(&format!("https:\\/\\/{BLOG}"), &format!("http:\\/\\/{BLOG}"));
        escaped.replace(&format!("https://{BLOG}"), &format!("http://{BLOG}"))
    };
    for path in ["/", "/?p=1", "/feed/", "/wp-includes/css/dist/block-library/style.min.css"] {
        let (own, rewritten) = (direct(path), curl(&["--compressed"], path));
        assert!(!own.is_empty() && plain(&rewritten) == plain(&own), "{path}:\n{rewritten}\ninstead of\n{own}");
        let lines = rewritten.lines().filter(|line| by_http.iter().any(|http| line.contains(&**http)));
        let left: Vec<_> = lines.filter(|line| !line.contains("<guid") && !line.contains("ld+json")).collect();
        assert!(left.is_empty(), "{path}: {left:#?}");
    }
    let head = curl(&["--head"], "/?p=1").to_ascii_lowercase();
    assert!(head.contains(&format!("link: <https://{BLOG}/")) && !head.contains(&format!("http://{BLOG}")), "{head}");

    let browser = Browser::start(&authority, pintle.https(), pintle.http());
    for path in ["/", "/?p=1", "/wp-login.php"] {
        browser.go(&url(path));
        assert_eq!(browser.url().trim_end_matches('/'), url(path).trim_end_matches('/'));
    }
    let requests = browser.requests();
    // Avatars are a stranger's, and stay as they are.
    let is_own_by_http = |text: &str| text.contains(&format!("http://{BLOG}"));
    assert!(requests.len() > 5 && !requests.iter().any(|url| is_own_by_http(url)), "{requests:?}");
    let complaints: Vec<_> = browser.complaints().into_iter().filter(|c| c.contains("Mixed Content")).collect();
    let own: Vec<_> = complaints.iter().filter(|c| !c.contains("gravatar.com")).collect();
    assert!(own.is_empty(), "{own:?}");
}
