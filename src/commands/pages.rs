//! `pintle man --dir`: writes the man pages where `man` finds them.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use super::fail;

/// Writes pages, each with its section and name, as `man5/pintle.toml.5`.
pub fn write<'p>(folder: &Path, pages: impl Iterator<Item = (&'p str, &'p str, &'p str)>) -> ExitCode {
    for (section, name, text) in pages {
        let section_folder = folder.join(format!("man{section}"));
        let path = section_folder.join(format!("{name}.{section}"));
        if let Err(error) = fs::create_dir_all(&section_folder).and_then(|()| fs::write(&path, text)) {
            return fail(&format!("{}: {error}", path.display()));
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}
