//! Walks the steps, shows the claims, and gives the verdict.

use std::process::ExitCode;

use weft_testkit::netns::{Inside, outer_pid};

use super::claim::{Claim, Outcome, table};
use super::flags::DemoFlags;
use super::show::Show;
use super::stage::Stage;
use super::steps::{STEPS, Step};

/// Runs the demo inside the private namespaces.
#[must_use]
pub fn run(flags: &DemoFlags, inside: Inside) -> ExitCode {
    let show = Show::new();
    show.say(match inside {
        Inside::Root => "running as root, in network namespaces of our own",
        Inside::User => "running as an ordinary user, in a user namespace",
    });
    let mut outcomes = STEPS.map(|step| Outcome { title: step.title, claims: Vec::new() });
    let until = flags.until.clamp(1, STEPS.len());
    let built = {
        let _busy =
            show.busy("building two nodes, and opening the shop (nginx, redis-server and five programs of ours)");
        Stage::build(flags)
    };
    match built {
        Ok(mut stage) => perform(flags, &show, &mut stage, (inside, &mut outcomes[..until])),
        Err(error) => outcomes[0].claims.push(Claim::of("the shop opens", Err(error))),
    }
    finish(&show, &outcomes[..until])
}

fn perform(flags: &DemoFlags, show: &Show, stage: &mut Stage, (inside, outcomes): (Inside, &mut [Outcome])) {
    let count = outcomes.len();
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        let Step { title, act } = STEPS[index];
        if flags.hold && index + 1 == STEPS.len() {
            hold(show, stage, inside);
        }
        show.title(index + 1, count, title);
        match act(stage, show) {
            Ok(claims) => outcome.claims = claims,
            // What follows builds upon this step: the rest of the table says "not reached".
            Err(error) => {
                outcome.claims.push(Claim::of("the step could be carried out", Err(error)));
                show.claim(&outcome.claims[0]);
                return;
            }
        }
        for claim in &outcome.claims {
            show.claim(claim);
        }
    }
}

fn finish(show: &Show, outcomes: &[Outcome]) -> ExitCode {
    let claims: Vec<&Claim> = outcomes.iter().flat_map(|outcome| &outcome.claims).collect();
    let reached = outcomes.iter().all(|outcome| !outcome.claims.is_empty());
    let failed = claims.iter().filter(|claim| !claim.held).count();
    if failed == 1 && claims.len() == 1 {
        show.claim(claims[0]);
    }
    show.end(&table(outcomes), failed, claims.len());
    if failed == 0 && reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Stays up until Ctrl-C.
fn hold(show: &Show, stage: &Stage, inside: Inside) {
    let lab = stage.cluster.lab();
    show.say("");
    show.say("Everything stays up until Ctrl-C. From another terminal, as the same user, go inside:");
    let outer = outer_pid().map_or_else(|| "PID-of-weft-demo".to_owned(), |pid| pid.to_string());
    let user = if inside == Inside::User { " -U --preserve-credentials" } else { "" };
    show.quote(&format!("nsenter -t $(pgrep -P {outer}){user} -n -m -p bash"));
    show.say("and there, for example:");
    let programs = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.display().to_string()));
    let (node, visitor) = (lab.node(1).netns(), &stage.floor.visitor.netns);
    show.quote(&format!(
        "export PATH={}:/usr/sbin:$PATH WEFT_ADMIN=127.0.0.1:15000\nip netns exec {node} weft pods\nip netns exec {node} weft connections\n\
         ip netns exec {visitor} curl http://{}/\nip netns exec {} tcpdump -ni node1 -A\n\
         ls {}     # the mesh is this directory: edit a file, and it happens",
        programs.unwrap_or_default(),
        stage.floor.web.at(false),
        lab.wire().name(),
        stage.cluster.directory().root().display()
    ));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(tokio::signal::ctrl_c())) {
        Ok(()) => show.say("going on to the last step"),
        Err(error) => show.say(&format!("cannot wait for Ctrl-C ({error}): going on")),
    }
}
