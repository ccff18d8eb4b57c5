//! Requests about share groups: the way into the folder of that name.

use klamm_protocol::ErrorCode;

use super::messages::{Group, GroupRequest, GroupResponse, GroupUndo};
use super::{GroupEffects, GroupShard};
use crate::group::share::{ShareGroup, ShareGroupRecord};
use crate::runtime::{Now, ReplyToken};

impl GroupShard {
    pub(super) fn handle_share(
        &mut self,
        request: GroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        // Answers wait for what they show to be committed.
        let answer = |response| GroupEffects {
            deferred: Some((token, response)),
            ..GroupEffects::default()
        };
        match request {
            GroupRequest::ShareHeartbeat(context, request) => {
                self.share_heartbeat(&context, &request, token, now)
            }
            GroupRequest::DescribeShareGroups(group_ids) => answer(
                GroupResponse::DescribeShareGroups(self.describe_share_groups(&group_ids)),
            ),
            GroupRequest::ShareStates(group_id) => {
                answer(GroupResponse::ShareStates(self.share_states(&group_id)))
            }
            GroupRequest::ShareStatesMade(group_id, made, ok) => {
                self.share_states_made(&group_id, &made, ok, token)
            }
            GroupRequest::AlterShareOffsets(request) => {
                self.alter_share_offsets(&request, token, now)
            }
            GroupRequest::DeleteShareOffsets(request) => self.delete_share_offsets(&request, token),
            GroupRequest::ShareOffsetsDeleted(group_id, topics) => {
                self.share_offsets_deleted(&group_id, &topics, token)
            }
            GroupRequest::BeginDeleteShareGroups(group_ids) => {
                self.begin_delete_share_groups(&group_ids, token)
            }
            other => {
                tracing::error!(request = ?other, "not a request about share groups");
                answer(GroupResponse::Refused(ErrorCode::UnknownServerError))
            }
        }
    }

    /// A record of a share group; the first makes the group known.
    pub(super) fn replay_share(&mut self, record: &ShareGroupRecord, now: Now) -> GroupUndo {
        let group_id = record.group_id().detached();
        let is_tombstone = record.is_tombstone();
        if let Some(Group::Share(group)) = self.groups.get_mut(&group_id) {
            if is_tombstone && matches!(record, ShareGroupRecord::Group(..)) {
                let previous = self.groups.remove(&group_id);
                return GroupUndo::Group(group_id, previous);
            }
            return GroupUndo::Share(group_id, group.replay(record, now));
        }
        if is_tombstone {
            return GroupUndo::Nothing;
        }
        let mut group = ShareGroup::new(group_id.clone());
        group.replay(record, now);
        let group = Group::Share(Box::new(group));
        let previous = self.groups.insert(group_id.clone(), group);
        GroupUndo::Group(group_id, previous)
    }
}
