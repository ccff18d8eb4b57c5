//! Listeners, framing, request pipelining and response segments
