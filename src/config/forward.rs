//! `links.<name>.forward`: whose records a link copies.

use std::sync::Arc;

use super::links::Clusters;
use super::resolved::{Cluster, Forward};
use super::written::{Fields, Reading, Text, nearest};
use super::yaml::Value;
use crate::limits;

const FORMS: &str =
    "write local, or a list of clusters where records were first written, such as [local, east]";

/// What was written, or the default. `from` and `to` are the link's clusters, where they are right.
pub(super) fn read(
    reading: &mut Reading<'_>,
    link: &mut Fields<'_>,
    from: Option<&Arc<Cluster>>,
    to: Option<&Arc<Cluster>>,
    clusters: &Clusters,
    used: &mut Vec<String>,
) -> Forward {
    let Some(node) = link.get(reading, "forward") else { return Forward::default() };
    let path = link.path_of("forward");
    let listed = matches!(node.value, Value::List(_));
    let texts = if listed {
        reading.texts(node, &path)
    } else {
        reading.text(node, &path).into_iter().collect()
    };
    if listed && texts.is_empty() {
        reading.error(node.at, "`forward` is empty: nothing would be copied", FORMS);
    } else if texts.len() > limits::ORIGINS_MAX {
        let what = format!("`forward` names {} clusters", texts.len());
        let fix = format!("at most {}: the position of each takes room", limits::ORIGINS_MAX);
        reading.error(node.at, what, fix);
    }
    let mut forward = Forward { local: false, origins: Vec::new() };
    for text in &texts {
        let name = &text.value;
        let is = |cluster: Option<&Arc<Cluster>>| cluster.is_some_and(|known| known.name == *name);
        if name == "local" || is(from) {
            forward.local = true;
        } else if !listed {
            let what = format!("`forward` is {}", text.quoted());
            reading.error(text.at, what, FORMS);
        } else if is(to) {
            let what = format!("`forward`: what was first written in {name} would come back to it");
            reading.error(text.at, what, "leave out the cluster that the link writes to");
        } else if let Some(cluster) = origin(reading, text, clusters, used)
            && !forward.origins.iter().any(|known| known.name == cluster.name)
        {
            forward.origins.push(cluster);
        }
    }
    forward
}

fn origin(
    reading: &mut Reading<'_>,
    text: &Text,
    clusters: &Clusters,
    used: &mut Vec<String>,
) -> Option<Arc<Cluster>> {
    used.push(text.value.clone());
    match clusters.get(&text.value) {
        Some(Some((_, cluster))) => Some(cluster.clone()),
        Some(None) => None,
        None => {
            let names = clusters.keys().map(String::as_str).chain(["local"]).collect::<Vec<_>>();
            let fix = match nearest(&text.value, &names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "name it under `clusters`: its id tells whose records are meant".to_owned(),
            };
            reading.error(text.at, format!("`forward`: no cluster {}", text.quoted()), fix);
            None
        }
    }
}
