use mcp_auth_proto::ProviderDefinition;
use std::fs;
use tempfile::TempDir;

use super::*;

mod keys;

const PATH: &str = "/c/config.toml";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(PATH))
}

/// What a person reads: the sentence, then the hint.
fn told(error: &ConfigError) -> String {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

fn complaint(text: &str) -> String {
    told(&parse(text).expect_err(text))
}

#[test]
fn a_table_named_like_a_preset_builds_on_it() {
    let config = parse("[providers.github]\nclient_id = \"abc\"\n").unwrap();
    let github = config.provider("github").unwrap();
    assert_eq!((github.preset.as_deref(), github.client_id.as_deref(), github.configured), (Some("github"), Some("abc"), true));
    assert_eq!(github.endpoints.token.as_deref(), Some("https://github.com/login/oauth/access_token"));
}

#[test]
fn configured_providers_come_first_then_the_other_presets() {
    let config =
        parse("[providers.work]\npreset = 'gitlab'\n[providers.gitlab]\nclient_id = 'x'\n[providers.idp]\nissuer = 'https://a.example'")
            .unwrap();
    let names = |config: &Config| config.providers().iter().map(|p| (p.name.clone(), p.configured)).collect::<Vec<_>>();
    let mut expected = vec![("gitlab", true), ("idp", true), ("work", true)];
    expected.extend(preset::all().map(preset::Preset::name).filter(|name| *name != "gitlab").map(|name| (name, false)));
    assert_eq!(names(&config), expected.into_iter().map(|(name, configured)| (name.to_owned(), configured)).collect::<Vec<_>>());
    assert!(names(&Config::default()).iter().all(|(_, configured)| !configured));
    assert_eq!(config.provider("github").unwrap().client_id, None);
    assert_eq!(config.provider("nobody"), None);
}

#[test]
fn the_network_table_is_kept_as_written() {
    let text = "[network]\nproxy = \"socks5h://127.0.0.1:9050\"\nno_proxy = [\".corp.example\", \"10.0.0.0/8\"]\nca_file = \"/etc/ca.pem\"";
    let network = parse(text).unwrap().network;
    assert_eq!(network.proxy, Some(Proxy::Through("socks5h://127.0.0.1:9050".into())));
    assert_eq!(parse("[network]\nproxy = 'none'").unwrap().network.proxy, Some(Proxy::Direct));
    assert_eq!(network.no_proxy, Some(vec![".corp.example".to_owned(), "10.0.0.0/8".to_owned()]));
    assert_eq!(network.ca_file, Some("/etc/ca.pem".into()));
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn wrong_keys_and_types_are_told_with_line_and_remedy() {
    let table = [
        (
            "[providers.github]\n\nclientid = \"x\"",
            "/c/config.toml:3: unknown key `clientid` in [providers.github]\nhint: did you mean `client_id`?",
        ),
        ("[provider.github]\n", "/c/config.toml:1: unknown key `provider`\nhint: did you mean `providers`?"),
        (
            "\ncolour = 1",
            "/c/config.toml:2: unknown key `colour`\nhint: the keys here are: providers, network, issuer, relay, notifications",
        ),
        (
            "[providers.corp]\ncallback_port = 1",
            "/c/config.toml:2: unknown key `callback_port` in [providers.corp]\nhint: did you mean `redirect_port`?",
        ),
        (
            "[providers.corp]\ntoken_url = 'x'",
            "/c/config.toml:2: unknown key `token_url` in [providers.corp]\nhint: did you mean `token_endpoint`?",
        ),
        ("[providers.github]\nclient_id = 5", "/c/config.toml:2: `client_id` must be a string, not a number"),
        ("[providers.github]\nscopes = 'hunter2'", "/c/config.toml:2: `scopes` must be an array of strings, not a string"),
        ("[providers.github]\nscopes = [\n  'a',\n  7]", "/c/config.toml:4: `scopes` must be a string, not a number"),
        (
            "[providers.github]\nclient_secret_command = 'echo hunter2'",
            "/c/config.toml:2: `client_secret_command` must be an array of strings, not a string",
        ),
        ("[providers.github]\nsend_resource = 'yes'", "/c/config.toml:2: `send_resource` must be true or false, not a string"),
        (
            "[providers.github]\nredirect_port = '80'",
            "/c/config.toml:2: `redirect_port` must be a whole number or an array of them, not a string",
        ),
        ("[providers]\ngithub = 'x'", "/c/config.toml:2: `github` must be a table, not a string"),
        ("providers = 1", "/c/config.toml:1: `providers` must be a table, not a number"),
        ("[providers.github]\npkce = 'plain'", "/c/config.toml:2: `pkce` has an unknown value\nhint: it may be: \"S256\", \"none\""),
        (
            "[providers.github]\nrefresh = 'never'",
            "/c/config.toml:2: `refresh` has an unknown value\nhint: it may be: \"ahead\", \"on-demand\"",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected);
    }
}

#[test]
fn text_that_is_not_toml_is_told_with_its_line() {
    let table = [
        (
            "[providers.github]\nclient_id = abc\n",
            "/c/config.toml:2: not TOML: string values must be quoted, expected literal string\nhint: texts are quoted: client_id = \"...\"",
        ),
        (
            "[providers.github]\nclient_id = 'a'\nclient_id = 'b'\n",
            "/c/config.toml:3: not TOML: duplicate key\nhint: every key and every [table] is written once",
        ),
        (
            "[providers.github]\n[providers.github]\n",
            "/c/config.toml:2: not TOML: duplicate key\nhint: every key and every [table] is written once",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected);
    }
}

#[test]
fn secrets_are_refused_and_not_repeated() {
    let table = [
        (
            "[providers.github]\nclient_secret = 'hunter2'",
            "/c/config.toml:2: `client_secret` in [providers.github]: secrets do not belong in this file\n\
             hint: run `mcp-authctl provider set-secret github`, which keeps it encrypted, and remove the line",
        ),
        (
            "[providers.github]\naccess_token = 'hunter2'",
            "/c/config.toml:2: `access_token` in [providers.github]: tokens do not belong in this file\n\
             hint: run `mcp-authctl add-token github`, which keeps it encrypted, and remove the line",
        ),
        (
            "[network]\nproxy = 'http://me:hunter2@proxy.example:3128'",
            "/c/config.toml:2: `proxy` holds a user name or password\n\
             hint: leave it out here and set HTTPS_PROXY for the daemon instead",
        ),
        ("[providers.corp]\nissuer = 'https://me:hunter2@a.example'", "/c/config.toml:2: `issuer` must not hold a user name or password"),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected);
    }
    for text in
        ["client_secret = 'hunter2", "client_id = 'a' hunter2", "scopes = hunter2", "redirect_port = ['hunter2']", "pkce = 'hunter2'"]
    {
        assert!(!complaint(&format!("[providers.github]\n{text}\n")).contains("hunter2"), "{text}");
    }
}

#[test]
fn wrong_values_are_told_with_line_and_remedy() {
    let table = [
        (
            "[providers.corp]\nissuer = 'http://idp.corp.example'",
            "/c/config.toml:2: `issuer` uses http: only https is allowed, and http on loopback\n\
             hint: secrets and tokens would be readable on the way; write https://",
        ),
        ("[providers.corp]\nissuer = 'idp.example'", "/c/config.toml:2: `issuer` must begin with https:// or http://"),
        ("[providers.corp]\nissuer = 'https://idp.example:99999'", "/c/config.toml:2: `issuer` is not a URL: invalid port number"),
        (
            "[providers.corp]\n# x\npreset = 'gitlabb'",
            "/c/config.toml:3: there is no preset `gitlabb`\nhint: did you mean `gitlab`? `mcp-authctl provider list` shows them all",
        ),
        (
            "\n[providers.GitHub]\nclient_id = 'x'",
            "/c/config.toml:2: `GitHub` is not a provider name\nhint: a name is a lower-case letter or digit, then up to 62 of a-z 0-9 . _ -",
        ),
        (
            "[providers.'../x\\u']\nclient_id = 'x'",
            "/c/config.toml:1: `../x\\\\u` is not a provider name\nhint: a name is a lower-case letter or digit, then up to 62 of a-z 0-9 . _ -",
        ),
        (
            "[providers.gitub]\nclient_id = 'x'",
            "/c/config.toml:1: [providers.gitub] names no authorization server\n\
             hint: did you mean [providers.github]? Else give preset, issuer, or authorization_endpoint and token_endpoint",
        ),
        (
            "[providers.corp]\ntoken_endpoint = 'https://a.example/t'",
            "/c/config.toml:2: `authorization_endpoint` is missing\nhint: give it too, or `issuer`, from which it is discovered",
        ),
        (
            "[providers.corp]\nbase_url = 'https://a.example'",
            "/c/config.toml:2: `base_url` means something only with a preset\n\
             hint: add preset = \"NAME\"; `mcp-authctl provider list` shows them",
        ),
        ("[providers.github]\nredirect_port = 70000", "/c/config.toml:2: `redirect_port` is 70000, and must be between 1 and 65535"),
        (
            "[providers.github]\nscopes = [\n  'repo gist',\n]",
            "/c/config.toml:3: `scopes` has a scope with a space in it\nhint: write one array item per scope: [\"read\", \"write\"]",
        ),
        ("[providers.github]\nclient_id = ''", "/c/config.toml:2: `client_id` is empty"),
        (
            "[providers.github]\nclient_secret_command = []",
            "/c/config.toml:2: `client_secret_command` names no program\n\
             hint: write the program and its arguments: [\"pass\", \"show\", \"oauth/github\"]",
        ),
        (
            "[providers.github]\nredirect_host = '0.0.0.0'",
            "/c/config.toml:2: `redirect_host` must be \"127.0.0.1\", \"localhost\" or \"[::1]\"",
        ),
        (
            "[providers.github.authorization_params]\nstate = 'x'",
            "/c/config.toml:2: `authorization_params` must not hold `state`, which the daemon sets itself",
        ),
        (
            "[network]\nca_file = '~/ca.pem'",
            "/c/config.toml:2: `ca_file` must be an absolute path\nhint: `~` and variables are not expanded here",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected);
    }
}

#[test]
fn the_reference_page_names_every_key_and_its_example_is_good() {
    let page = include_str!("../../../docs/config.md");
    for (table, keys) in [("providers.corp", 58), ("network", 3), ("notifications", 1)] {
        let error = parse(&format!("[{table}]\nzzzzzzzzzzzz = 1")).unwrap_err();
        let known: Vec<_> = error.hint().unwrap().trim_start_matches("the keys here are: ").split(", ").collect();
        assert_eq!(known.len(), keys);
        for key in known {
            assert!(page.contains(&format!("\n| `{key}` |")), "{key}");
        }
    }
    let example = page.split("```").find_map(|block| block.strip_prefix("toml\n")).unwrap();
    assert_eq!(parse(example).unwrap().providers.len(), 3);
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The error of a file, without the path of its temporary folder.
fn file_error(path: &Path) -> String {
    told(&Config::load(path).unwrap_err()).replace(path.parent().unwrap().to_str().unwrap(), "")
}

#[test]
fn an_absent_file_is_an_empty_one() {
    assert_eq!(Config::load(&folder().path().join("no/config.toml")), Ok(Config::default()));
}

#[test]
fn a_file_that_cannot_be_read_is_told_why() {
    let folder = folder();
    let path = folder.path().join("config.toml");
    fs::create_dir(&path).unwrap();
    assert_eq!(file_error(&path), "/config.toml: is a folder, not a file\nhint: name the file itself, such as config.toml in it");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"[network]\n# ok\nproxy = '\xff'").unwrap();
    assert_eq!(file_error(&path), "/config.toml:3: is not UTF-8\nhint: save the file as UTF-8");
    fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert_eq!(file_error(&path), "/config.toml: is larger than 1 MiB");
}

fn github(client_id: &str) -> ProviderDefinition {
    ProviderDefinition { client_id: Some(client_id.to_owned()), ..ProviderDefinition::default() }
}

#[test]
fn a_definition_makes_the_file_and_its_folders() {
    let folder = folder();
    let path = folder.path().join("a/b/config.toml");
    let config = define_provider(&path, "github", &github("abc")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "[providers.github]\nclient_id = \"abc\"\n");
    assert_eq!(config, Config::load(&path).unwrap());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_definition_keeps_comments_order_and_what_it_does_not_name() {
    let folder = folder();
    let path = folder.path().join("config.toml");
    let old = "# mine\n[providers.gitlab] # work\nscopes = [\"api\"]\nclient_id = \"old\" # from 2024\n\n[network]\n# through the corp\nproxy = \"http://p:1\"\n";
    fs::write(&path, old).unwrap();
    define_provider(&path, "gitlab", &github("new")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), old.replace("old", "new"));
    let more = ProviderDefinition {
        preset: Some("gitlab".into()),
        base_url: Some("https://git.corp.example".into()),
        scopes: Some(vec!["api".into(), "mcp".into()]),
        callback_port: Some(4000),
        ..ProviderDefinition::default()
    };
    let config = define_provider(&path, "corp.git", &more).unwrap();
    let added = "[providers.\"corp.git\"]\npreset = \"gitlab\"\nbase_url = \"https://git.corp.example\"\n\
                 scopes = [\"api\", \"mcp\"]\nredirect_port = 4000\n\n[network]";
    assert_eq!(fs::read_to_string(&path).unwrap(), old.replace("old", "new").replace("[network]", added));
    assert_eq!(config.provider("corp.git").unwrap().redirect_uri_for_registration(), "http://127.0.0.1:4000/callback");
}

#[test]
fn a_definition_never_makes_a_file_that_is_too_large_to_be_read() {
    let folder = folder();
    let path = folder.path().join("config.toml");
    let long = ProviderDefinition { issuer: Some("https://as.example".into()), ..github(&"x".repeat(60_000)) };
    let refused = (0..100).map(|number| define_provider(&path, &format!("p{number}"), &long)).find_map(Result::err).unwrap();
    assert!(told(&refused).contains("would be larger than 1 MiB"), "{}", told(&refused));
    Config::load(&path).unwrap();
    define_provider(&path, "p0", &github("short")).unwrap();
}

#[test]
fn a_wrong_definition_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("config.toml");
    let refused = |name: &str, definition: &ProviderDefinition| {
        told(&define_provider(&path, name, definition).unwrap_err()).replace(folder.path().to_str().unwrap(), "")
    };
    let http = ProviderDefinition { issuer: Some("http://a.example".into()), ..ProviderDefinition::default() };
    assert_eq!(
        refused("corp", &http),
        "/config.toml: [providers.corp] is not written: `issuer` uses http: only https is allowed, and http on loopback\n\
         hint: secrets and tokens would be readable on the way; write https://"
    );
    assert_eq!(
        refused("../x", &http),
        "/config.toml: `../x` is not a provider name\nhint: a name is a lower-case letter or digit, then up to 62 of a-z 0-9 . _ -"
    );
    assert!(!path.exists());
    fs::write(&path, "[network]\nproxi = 'x'\n").unwrap();
    assert_eq!(refused("github", &github("x")), "/config.toml:2: unknown key `proxi` in [network]\nhint: did you mean `proxy`?");
    assert_eq!(fs::read_to_string(&path).unwrap(), "[network]\nproxi = 'x'\n");
}

#[test]
fn a_definition_finds_inline_tables_and_dotted_keys() {
    for old in [
        "providers = { github = { client_id = \"a\" } }\n",
        "providers.github.client_id = \"a\"\n",
        "[providers]\ngithub.client_id = \"a\"\n",
    ] {
        let folder = folder();
        let path = folder.path().join("config.toml");
        fs::write(&path, old).unwrap();
        define_provider(&path, "github", &github("b")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), old.replace("\"a\"", "\"b\""));
        let config = define_provider(&path, "gitlab", &github("c")).unwrap();
        assert_eq!(config.provider("gitlab").unwrap().client_id.as_deref(), Some("c"), "{old}");
    }
}

#[cfg(unix)]
mod on_unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_others_can_write_is_not_used() {
        let folder = folder();
        let path = folder.path().join("config.toml");
        fs::write(&path, "").unwrap();
        set_mode(&path, 0o664);
        assert_eq!(file_error(&path), "/config.toml: is not used, because it can be written by others\nhint: chmod go-w '/config.toml'");
        set_mode(&path, 0o644);
        assert!(Config::load(&path).is_ok());
        set_mode(folder.path(), 0o777);
        assert_eq!(file_error(&path), "/config.toml: is not used, because its folder can be written by others\nhint: chmod go-w ''");
    }

    #[test]
    fn a_file_of_another_user_is_not_used() {
        let folder = folder();
        let path = folder.path().join("config.toml");
        fs::write(&path, "").unwrap();
        if std::os::unix::fs::chown(&path, Some(4242), None).is_err() {
            return; // only root can give a file away
        }
        assert_eq!(file_error(&path), "/config.toml: is not used, because it belongs to another user (uid 4242)");
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let folder = folder();
        let path = folder.path().join("config.toml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        assert_eq!(file_error(&path), "/config.toml: is not a regular file");
    }

    #[test]
    fn what_is_written_is_for_its_owner_only() {
        let folder = folder();
        let path = folder.path().join("new/config.toml");
        define_provider(&path, "github", &github("abc")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn a_link_is_written_through_to_its_target() {
        let folder = folder();
        let (link, target) = (folder.path().join("config.toml"), folder.path().join("dotfiles/mcp.toml"));
        symlink("dotfiles/mcp.toml", &link).unwrap();
        for client_id in ["first, the target does not exist yet", "second"] {
            define_provider(&link, "github", &github(client_id)).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert!(fs::read_to_string(&target).unwrap().contains(client_id));
        }
    }

    #[test]
    fn a_link_in_a_folder_that_others_can_write_is_not_followed() {
        let folder = folder();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::write(folder.path().join("real.toml"), "").unwrap();
        symlink("../real.toml", open.join("config.toml")).unwrap();
        set_mode(&open, 0o777);
        let error = Config::load(&open.join("config.toml")).unwrap_err().to_string();
        assert!(error.ends_with("config.toml: is not used, because its folder can be written by others"), "{error}");
    }

    #[test]
    fn a_link_that_changes_while_it_is_read_never_brings_somebody_elses_text() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("mine"), "# mine").unwrap();
        fs::write(path("theirs"), "# theirs").unwrap();
        if std::os::unix::fs::chown(path("theirs"), Some(65534), None).is_err() {
            return; // only root can give files away
        }
        symlink(path("mine"), path("config.toml")).unwrap();
        let read_often = || (0..20_000).any(|_| file::read(&path("config.toml")).is_ok_and(|text| text.as_deref() == Some("# theirs")));
        let over = std::sync::atomic::AtomicBool::new(false);
        let swap = || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for target in ["theirs", "mine"] {
                    symlink(path(target), path("next")).unwrap();
                    fs::rename(path("next"), path("config.toml")).unwrap();
                }
            }
        };
        let deceived = std::thread::scope(|scope| {
            scope.spawn(swap);
            let deceived = read_often();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            deceived
        });
        assert!(!deceived);
    }

    #[test]
    fn a_read_only_file_or_folder_stays_and_the_snippet_is_told() {
        let folder = folder();
        let path = folder.path().join("config.toml");
        fs::write(&path, "# kept\n").unwrap();
        for (place, mode, back) in [(path.as_path(), 0o444, 0o600), (folder.path(), 0o555, 0o700)] {
            set_mode(place, mode);
            let error = define_provider(&path, "github", &github("abc")).unwrap_err();
            set_mode(place, back);
            assert_eq!(error.kind(), ConfigErrorKind::Unwritable);
            assert_eq!(
                told(&error).replace(folder.path().to_str().unwrap(), ""),
                "/config.toml: cannot be written: it is read-only\n\
                 hint: add this by hand, then run `mcp-authctl reload`:\n[providers.github]\nclient_id = \"abc\""
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), "# kept\n");
        }
    }
}

#[test]
fn the_issuer_is_off_unless_it_is_switched_on() {
    assert_eq!(parse("").unwrap().issuer, None);
    assert_eq!(parse("[issuer]\nlisten = '127.0.0.1:9000'").unwrap().issuer, None);
    let issuer = parse("[issuer]\nenabled = true").unwrap().issuer.unwrap();
    assert_eq!((issuer.issuer().as_str(), issuer.access_token_lifetime.as_secs()), ("http://127.0.0.1:8731", 600));
    let text = "[issuer]\nenabled = true\nlisten = '[::1]:9000'\naccess_token_lifetime = 20\n\
                [[issuer.clients]]\nclient_id = 'a'\nname = 'Zo\u{eb}s editor'\nredirect_uris = ['http://127.0.0.1/cb', 'com.example.app:/cb']\n\
                [[issuer.clients]]\nclient_id = 'b'\nclient_secret_command = ['cat', '/s']\nredirect_uris = ['https://b.example/cb']\nscopes = ['x']\n\
                [[issuer.resources]]\nuri = 'http://127.0.0.1:3000/mcp'\nscopes = ['x', 'y']";
    let issuer = parse(text).unwrap().issuer.unwrap();
    assert_eq!((issuer.issuer().as_str(), issuer.clients.len(), issuer.resources[0].scopes.len()), ("http://[::1]:9000", 2, 2));
    assert_eq!(
        (issuer.client("a").unwrap().scopes.clone(), issuer.client("b").unwrap().scopes.clone()),
        (None, Some(vec!["x".to_owned()]))
    );
}

#[test]
fn what_is_wrong_with_the_issuer_is_told_with_line_and_remedy() {
    let client = |more: &str| format!("[[issuer.clients]]\nclient_id = \"a\"\nredirect_uris = [\"http://127.0.0.1/cb\"]\n{more}");
    let redirect = |uri: &str| format!("[[issuer.clients]]\nclient_id = \"a\"\nredirect_uris = [\"{uri}\"]");
    let table = [
        ("[issuer]\nlisten = \"0.0.0.0:1\"".to_owned(), 2, "`listen` must be a loopback address"),
        ("[issuer]\nlisten = \"127.0.0.1:0\"".into(), 2, "`listen` must name a port\nhint: the port is part of the issuer's name"),
        ("[issuer]\nlisten = \"localhost:1\"".into(), 2, "`listen` must be an address with a port"),
        ("[issuer]\naccess_token_lifetime = 1".into(), 2, "`access_token_lifetime` is 1, and must be between 5 and 86400"),
        ("[issuer]\nenable = true".into(), 2, "unknown key `enable` in [issuer]\nhint: did you mean `enabled`?"),
        ("[issuer]\nenabled = \"yes\"".into(), 2, "`enabled` must be true or false, not a string"),
        (
            client("client_secret = \"s3cret\""),
            4,
            "secrets do not belong in this file\nhint: name a command that prints it: client_secret_command =",
        ),
        (client("scopes = [\"a b\"]"), 4, "`scopes` has a scope with a space in it"),
        (client("name = \"\u{202e}x\""), 4, "`name` must have 1 to 60 visible characters"),
        (client(&client("")), 5, "`client_id` is there twice"),
        (client("redirects = []"), 4, "unknown key `redirects` in [issuer.clients]"),
        (
            "[[issuer.clients]]\nclient_id = \"a\"\nredirect_uris = []".into(),
            3,
            "`redirect_uris` is empty\nhint: write what the client sends",
        ),
        (redirect("http://app.example/cb"), 3, "`redirect_uris` has an item that is neither https, nor http on loopback"),
        (redirect("javascript:alert(1)"), 3, "`redirect_uris` has an item that is neither https"),
        (redirect("http://127.0.0.1/cb#x"), 3, "`redirect_uris` has an item with a fragment"),
        (redirect("https://u:p@app.example/cb"), 3, "`redirect_uris` must not hold a user name"),
        (redirect("/cb"), 3, "`redirect_uris` has an item that is not a URL"),
        ("[[issuer.resources]]\nuri = \"http://mcp.example/\"".into(), 2, "`uri` uses http"),
        ("[[issuer.resources]]\nscopes = []".into(), 1, "`uri` is missing in [[issuer.resources]]"),
    ];
    for (text, line, expected) in table {
        let complaint = complaint(&text);
        assert!(complaint.starts_with(&format!("{PATH}:{line}: ")) && complaint.contains(expected), "{text}\n=> {complaint}");
        assert!(!complaint.contains("s3cret"), "{complaint}");
    }
}

#[test]
fn tokens_are_bound_to_a_key_where_there_is_one_server_for_the_relay() {
    let provider = "[providers.corp]\nissuer = \"https://as.example\"\nclient_id = \"me\"\ndpop = true\n";
    assert!(told(&parse(provider).unwrap_err()).contains("`resource` is missing"));
    for table in [
        format!("{provider}resource = \"https://mcp.example/mcp\"\n"),
        "[providers.corp]\nserver = \"https://mcp.example/mcp\"\ndpop = true\n".into(),
    ] {
        assert!(parse(&table).is_ok(), "{table}");
    }
}
