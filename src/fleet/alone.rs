//! Without membership: everything is ours, commits come from outside the group. A second instance is kept apart only by the
//! target's sequence check.

use super::{Context, Holder};
use crate::engine::member::Standing;

/// Takes everything, for good.
pub(super) async fn run<H: Holder>(context: &Context<H>) -> std::convert::Infallible {
    context.member.set(Standing::Outsider);
    context.holder.take_all();
    context.holder.settled();
    std::future::pending().await
}
