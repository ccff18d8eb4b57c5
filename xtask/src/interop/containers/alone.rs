//! One container of the image, by `docker run`.

use super::engine::{Container, Member, Volume, docker};
use super::{Containers, METRICS_PORT, PORT, expect_records, metrics, reach, values, write};
use crate::Result;
use crate::hello::{partitions_of, wait_for_ports};
use std::fs;
use std::time::Instant;

const TOPIC: &str = "contained";
/// Of a user who is not root, and is no user of the machine's.
const USER: &str = "65532";

impl Containers {
    /// Starts a container with its ports published; returns when it can be used.
    fn start(
        &self,
        name: &str,
        options: &[&str],
        arguments: &[&str],
    ) -> Result<(Container, Member)> {
        wait_for_ports(&[PORT, METRICS_PORT])?;
        let publish = ["--publish", "9092:9092", "--publish", "9644:9644"];
        let begun = Instant::now();
        let container = self
            .engine
            .run(name, &[&publish, options].concat(), arguments)?;
        let started = begun.elapsed();
        let member = container.as_member();
        if let Err(e) = reach(PORT, 1) {
            return Err(format!("{e}:\n{}", member.logs()?).into());
        }
        println!(
            "      docker run took {} ms, a client was served after {}",
            started.as_millis(),
            begun.elapsed().as_millis()
        );
        Ok((container, member))
    }

    /// `docker run klamm`, as it is.
    pub(super) fn no_settings(&self) -> Result<()> {
        let (_container, member) = self.start("no-settings", &[], &[])?;
        member.healthy()?;
        metrics()?;
        let records = values(0, 100);
        let mut connection = reach(PORT, 1)?;
        write(&mut connection, TOPIC, &records)?;
        expect_records(&mut connection, TOPIC, &records)?;
        let top = docker(&["top", &member.0, "-eo", "pid,uid,gid"])?;
        let process: Vec<&str> = top
            .lines()
            .skip(1)
            .flat_map(str::split_whitespace)
            .collect();
        if process.get(1..) != Some(&[USER, USER][..]) {
            return Err(format!("not one process of user and group {USER}:\n{top}").into());
        }
        let took = member.stop()?;
        println!("      docker stop took {} ms", took.as_millis());
        Ok(())
    }

    /// A variable that says nothing of listeners changes nothing of them.
    pub(super) fn one_variable(&self) -> Result<()> {
        let options = ["--env", "KAFKA_NUM_PARTITIONS=3"];
        let (_container, member) = self.start("one-variable", &options, &[])?;
        member.healthy()?;
        metrics()?;
        expect_partitions(3)
    }

    /// Nothing but the volume can be written, and root's powers are nobody's. Another container goes
    /// on with the volume.
    pub(super) fn locked_down(&self) -> Result<()> {
        let volume = Volume::new("locked-down")?;
        let place = format!("{}:/data", volume.0);
        let security = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
        let options = [&["--read-only", "--volume", &place][..], &security].concat();
        for round in 0..3 {
            let (container, member) = self.start("locked-down", &options, &[])?;
            let mut connection = reach(PORT, 1)?;
            expect_or_nothing(&mut connection, round)?;
            write(
                &mut connection,
                TOPIC,
                &values(round * 100, round * 100 + 100),
            )?;
            // Once in order, once not.
            if round == 0 {
                member.stop()?;
            }
            drop(container);
        }
        Ok(())
    }

    /// As the Dockerfile's first lines say.
    pub(super) fn properties_file(&self) -> Result<()> {
        let file = self.folder.join("server.properties");
        let text = "listeners=PLAINTEXT://:9092\nadvertised.listeners=PLAINTEXT://localhost:9092\n\
                    klamm.metrics.listeners=0.0.0.0:9644\nnum.partitions=4\n";
        fs::write(&file, text)?;
        let mount = format!("{}:/server.properties", file.display());
        let arguments = ["/server.properties"];
        let (_container, member) =
            self.start("properties-file", &["--volume", &mount], &arguments)?;
        member.healthy()?;
        expect_partitions(4)
    }

    pub(super) fn wrong_setting(&self) -> Result<()> {
        let options = ["--env", "KAFKA_CFG_NUM_PARTITIONS=many"];
        let wanted = ["num.partitions", "many", "KAFKA_CFG_NUM_PARTITIONS"];
        self.refuses("wrong-setting", &options, 2, &wanted)
    }

    /// A folder of the machine's that the image's user may not write.
    pub(super) fn folder_of_root(&self) -> Result<()> {
        let folder = self.folder.join("of-root");
        fs::create_dir_all(&folder)?;
        let mount = format!("{}:/data", folder.display());
        let options = ["--volume", &*mount];
        self.refuses(
            "folder-of-root",
            &options,
            1,
            &["./data", "Permission denied"],
        )
    }

    /// Expects a container to end with a code, and words on why.
    fn refuses(&self, name: &str, options: &[&str], code: i32, wanted: &[&str]) -> Result<()> {
        let container = self.engine.run(name, options, &[])?;
        let member = container.as_member();
        let ended = member.wait()?;
        let logs = member.logs()?;
        if ended != code || wanted.iter().any(|word| !logs.contains(word)) {
            return Err(format!("ended with {ended}, not {code} and {wanted:?}:\n{logs}").into());
        }
        Ok(())
    }
}

/// What the rounds before have written.
fn expect_or_nothing(connection: &mut crate::wire::Connection, rounds: usize) -> Result<()> {
    match rounds {
        0 => Ok(()),
        rounds => expect_records(connection, TOPIC, &values(0, rounds * 100)),
    }
}

fn expect_partitions(wanted: i32) -> Result<()> {
    match partitions_of(PORT, "anything")? {
        found if found == wanted => Ok(()),
        found => Err(format!("{found} partitions instead of {wanted}").into()),
    }
}
