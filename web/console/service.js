// The service: nodes, members of etcd, shards, and their problems.

import { $, attr, bar, h, lines, reconcile, row, table, text } from "./dom.js";
import { bytes, count, parse, plural, span } from "./format.js";
import { now } from "./api.js";

const maxReportAge = 35_000; // ms; nodes report every ten seconds
const maxLag = 1000; // raft entries

const nodeColumns = [
  { name: "node", title: "Node", head: true, cls: "free" }, { name: "region", title: "Region" },
  { name: "starts", title: "Admitted", cls: "n" }, { name: "up", title: "Up for", cls: "n" },
];

const memberColumns = [
  { name: "member", title: "Member", head: true, cls: "free" }, { name: "role", title: "Role" },
  { name: "size", title: "Database", cls: "n" },
  { name: "bar", hidden: "Share of the database in use", cls: "narrow" }, { name: "lag", title: "Behind", cls: "n" },
  { name: "alarms", title: "Alarms" },
];

/** Shows nodes, shards and what needs attention. */
export function showService(stats) {
  showNodes(stats);
  showEtcd(stats.shards);
  showAttention(findProblems(stats));
}

function showNodes({ nodes, node: self }) {
  const into = $("nodes");
  into.body ??= (() => {
    const made = table("Nodes of the service", nodeColumns);
    into.append(made.el);
    return made.body;
  })();
  const known = nodes.length ? nodes : [{ ...self, admitted: undefined }];
  reconcile(into.body, known, {
    key: ({ id }) => id,
    create: () => row(nodeColumns),
    update: (tr, n) => {
      lines(tr.of.node, n.id, [n.id === self.id ? "this node" : "", n.address].filter(Boolean).join(" · "));
      lines(tr.of.region, n.region, n.version);
      lines(tr.of.starts, n.admitted === undefined ? "–" : count(n.admitted),
        n.refused === undefined ? "" : `${count(n.refused)} refused`);
      const ago = n.reportedAt && now() - parse(n.reportedAt);
      lines(tr.of.up, n.startedAt ? span(now() - parse(n.startedAt)) : "–",
        ago === undefined ? "" : `reported ${span(ago)} ago`);
      attr(tr.of.up, "data-level", ago > maxReportAge ? "bad" : null);
    },
  });
}

// Shows a table per shard, with the shard in the caption.
function showEtcd(shards) {
  const into = $("etcd");
  into.list ??= into.appendChild(h("div"));
  into.empty ??= into.appendChild(h("p", { class: "empty" }, "No data about etcd."));
  attr(into.empty, "hidden", shards.length > 0);
  reconcile(into.list, shards, {
    key: ({ name }) => name,
    create: () => table("", memberColumns, "list shard").el,
    update: (el, shard) => {
      el.caption.className = "";
      lines(el.caption, shard.name, summary(shard));
      attr(el.caption, "data-level", shard.error ? "bad" : null);
      reconcile(el.tBodies[0], shard.etcd, { key: ({ name }) => name, create: () => row(memberColumns), update: showMember });
    },
  });
}

function summary({ streams, leader, members, error }) {
  return error ? `no data: ${error}`
    : [plural(streams, "stream"), plural(members, "member"), leader ? `led by ${leader}` : "no leader known"].join(" · ");
}

function showMember(tr, m) {
  lines(tr.of.member, m.name, m.error || m.version);
  text(tr.of.role, m.error ? "not reached" : m.leader ? "leader" : "follower");
  attr(tr.of.role, "data-level", m.error ? "bad" : m.leader ? "good" : null);
  lines(tr.of.size, m.error ? "–" : bytes(m.dbSizeBytes), m.error ? "" : `${bytes(m.dbInUseBytes)} in use`);
  bar(tr.of.bar, [{ share: m.dbSizeBytes ? m.dbInUseBytes / m.dbSizeBytes : 0, cls: "c1" }]);
  text(tr.of.lag, m.error ? "–" : count(m.lag));
  attr(tr.of.lag, "data-level", m.lag > maxLag ? "bad" : null);
  text(tr.of.alarms, m.alarms.join(", ") || (m.error ? "–" : "none"));
  attr(tr.of.alarms, "data-level", m.alarms.length ? "bad" : null);
}

function findProblems({ shards, nodes }) {
  const out = [];
  for (const shard of shards) {
    if (shard.error) out.push(`Shard ${shard.name}: ${shard.error}`);
    else if (shard.etcd.length && !shard.etcd.some((m) => m.leader)) {
      out.push(`Shard ${shard.name} has no leader: no stream can be started; running streams continue.`);
    }
    for (const m of shard.etcd) {
      if (m.error) out.push(`etcd member ${m.name} (${shard.name}): ${m.error}`);
      if (m.alarms.length) out.push(`etcd member ${m.name} (${shard.name}) has raised ${m.alarms.join(", ")}.`);
      if (m.lag > maxLag) out.push(`etcd member ${m.name} (${shard.name}) is ${count(m.lag)} entries behind its leader.`);
    }
  }
  for (const n of nodes) {
    const ago = n.reportedAt && now() - parse(n.reportedAt);
    if (ago > maxReportAge) out.push(`Node ${n.id} has not reported for ${span(Math.floor(ago / 10_000) * 10_000)}.`);
  }
  return out;
}

function showAttention(list) {
  const section = $("attention");
  attr(section, "hidden", list.length === 0);
  reconcile(section.querySelector("ul"), list, { key: (what) => what, create: (what) => h("li", null, what) });
}
