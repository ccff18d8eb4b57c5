//! Group coordination: the coordinator runtime and the group state machines
