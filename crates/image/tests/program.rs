//! The program makes the same images of the same programs, wherever and whenever they were built, and says in them what they are.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as tests")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use weft_image::recipes::RECIPES;

/// A folder with stand-ins for our programs: true is a program, and small.
fn programs(folder: &Path, age: Duration) {
    fs::create_dir_all(folder).unwrap();
    // Another order of the directory as well.
    let mut names: Vec<&str> = RECIPES.iter().flat_map(|recipe| recipe.programs).copied().collect();
    if age > Duration::ZERO {
        names.reverse();
    }
    for name in names {
        fs::copy("/usr/bin/true", folder.join(name)).unwrap();
        File::options().append(true).open(folder.join(name)).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }
}

fn make(programs: &Path, output: &Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-image"));
    command.arg("--programs").arg(programs).arg("--output").arg(output).args(more);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The configuration of the one image of an archive.
fn config(archive: &Path) -> Value {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    let mut documents = archive.entries().unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        // Layers are large, and no JSON.
        (entry.size() < 100_000).then(|| serde_json::from_reader(entry).ok()).flatten()
    });
    documents.find(|document: &Value| document["rootfs"].is_object()).unwrap()
}

#[test]
fn the_same_programs_give_the_same_images_wherever_and_whenever_they_were_built() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("elsewhere/other"));
    programs(&one, Duration::ZERO);
    programs(&other, Duration::from_secs(90_000));
    let label = ["--tag", "1.2.3", "--revision", "0123abc"];
    let digests =
        |text: &str| -> Vec<String> { text.lines().map(|line| line.rsplit('@').next().unwrap().to_owned()).collect() };
    let first = digests(&make(&one, &folder.path().join("a"), &label));
    assert_eq!(first.len(), RECIPES.len());
    assert_eq!(first, digests(&make(&other, &folder.path().join("b"), &label)));
    for recipe in RECIPES {
        let archive = |output: &str| folder.path().join(output).join(format!("{}.tar", recipe.name));
        assert!(fs::read(archive("a")).unwrap() == fs::read(archive("b")).unwrap(), "{}", recipe.name);
        let labels = &config(&archive("a"))["config"]["Labels"];
        assert_eq!(labels["org.opencontainers.image.version"], "1.2.3");
        assert_eq!(labels["org.opencontainers.image.revision"], "0123abc");
    }
    // Another program gives another image.
    fs::copy("/usr/bin/false", other.join("weft-cni")).unwrap();
    let changed = digests(&make(&other, &folder.path().join("c"), &label));
    let same: Vec<bool> = first.iter().zip(&changed).map(|(first, changed)| first == changed).collect();
    let expected: Vec<bool> = RECIPES.iter().map(|recipe| !recipe.programs.contains(&"weft-cni")).collect();
    assert_eq!(same, expected);
}

#[test]
fn the_dockerfile_starts_its_images_as_the_recipes_do() {
    let folder = tempfile::tempdir().unwrap();
    programs(&folder.path().join("programs"), Duration::ZERO);
    make(&folder.path().join("programs"), folder.path(), &[]);
    let text = include_str!("../../../Dockerfile");
    for recipe in RECIPES {
        let stage = text
            .split("\nFROM ")
            .find(|stage| stage.lines().next().is_some_and(|line| line.ends_with(&format!(" AS {}", recipe.name))));
        let stage = stage.unwrap_or_else(|| panic!("no stage {}", recipe.name));
        let config = &config(&folder.path().join(format!("{}.tar", recipe.name)))["config"];
        let entrypoint = format!("ENTRYPOINT {}", config["Entrypoint"]);
        let user = format!("USER {}", config["User"].as_str().unwrap());
        let environment = format!("ENV {}", config["Env"][0].as_str().unwrap());
        let labels = config["Labels"].as_object().unwrap().keys().map(|label| format!("{label}="));
        for line in [entrypoint, user, environment].into_iter().chain(labels) {
            assert!(stage.contains(&line), "{}: {line}", recipe.name);
        }
        for program in recipe.programs {
            assert!(text.contains(&format!("--bin {program}")), "{program} is not built");
        }
    }
}

#[test]
fn the_files_of_an_image_can_be_had_alone() {
    let folder = tempfile::tempdir().unwrap();
    programs(&folder.path().join("programs"), Duration::ZERO);
    make(&folder.path().join("programs"), folder.path(), &["--layers"]);
    for recipe in RECIPES {
        let file = File::open(folder.path().join(format!("{}.layer.tar", recipe.name))).unwrap();
        let mut archive = tar::Archive::new(file);
        let paths: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        for program in recipe.programs {
            assert!(paths.contains(&format!("usr/bin/{program}")), "{program} in {paths:?}");
        }
    }
}
