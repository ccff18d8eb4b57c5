//! The network between the nodes is cut while the load goes on, for twice the time in which a
//! broker is missed.

use super::Scenario;
use super::net::CLIENTS;
use crate::Result;
use crate::report::Report;
use std::thread::sleep;
use std::time::Duration;

/// Twice the session, and then some.
const LONG: Duration = Duration::from_secs(7);

/// Which packets get lost: from, to.
type Cut = Vec<(i32, i32)>;

impl Scenario {
    pub(super) fn cuts(&mut self, rounds: u32, report: &mut Report) {
        for round in 1..=rounds {
            let named = |what: &str| format!("cluster.{what}-{round}");
            // It takes itself for the leader as long as nobody tells it otherwise, and its clients
            // still reach it.
            report.test(&named("cut-leader"), || {
                let leader = self.leader(round)?;
                let cut = self.others(leader).into_iter();
                self.cut(
                    &cut.flat_map(|to| [(leader, to), (to, leader)])
                        .collect::<Vec<_>>(),
                )
            });
            // One side of the quorum has a majority, and the one that decided is not in it.
            report.test(&named("cut-controller"), || {
                let controller = self.active_controller()?;
                let mut others = self.others(controller);
                others.push(CLIENTS);
                let cut = others.into_iter();
                self.cut(
                    &cut.flat_map(|to| [(controller, to), (to, controller)])
                        .collect::<Vec<_>>(),
                )
            });
            // Hears all and is not heard.
            report.test(&named("cut-one-way"), || {
                let leader = self.leader(round + 1)?;
                let cut = self.others(leader).into_iter();
                self.cut(&cut.map(|to| (leader, to)).collect::<Vec<_>>())
            });
            // Both are well, but for each other.
            report.test(&named("cut-link"), || {
                let controller = self.active_controller()?;
                let ends = self.others(controller);
                self.cut(&vec![(ends[0], ends[1]), (ends[1], ends[0])])
            });
        }
    }

    fn others(&self, than: i32) -> Vec<i32> {
        let mut ids = self.nodes.ids();
        ids.retain(|id| *id != than);
        ids
    }

    /// Cuts, sees that the load goes on, heals, and sees that all is well again.
    fn cut(&mut self, cut: &Cut) -> Result<()> {
        let net = self.nodes.net.as_ref().ok_or("there is no network")?;
        for (from, to) in cut {
            net.cut(*from, *to)?;
        }
        sleep(LONG);
        let went_on = self.goes_on(1);
        net.heal()?;
        println!(
            "      cut {cut:?}: 1 s of load in {} ms",
            went_on?.as_millis()
        );
        self.goes_on(1)?;
        self.all_in_sync()
    }
}
