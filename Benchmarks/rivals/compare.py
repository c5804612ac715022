"""The same rules and the same calls decided by Cedar and by casbin, one decision at a time.

usage: compare.py CALLS.json

CALLS.json is {"rules": [{"capability", "tier", "path_prefix"}…], "default": TIER, "calls": [{"agent", "capability",
"path"}…], "tiers": [TIER…]}: rules in the order in which the first match answers, and the answer expected of each call.

Neither engine has four tiers, so each tells which rule answers and a table gives that rule's tier:

- Cedar: one `permit` for each rule, with the capability as its action and `context.path` compared with the prefix itself
  and by `like "prefix/*"`. The permits that hold come back as the decision's reasons; the lowest number is the first
  match, and a denial is the default. Policies and entities are parsed once, contexts are JSON texts.
- casbin: the priority effect over one line for each rule in order, a prefix function in the matcher. It stops at the
  first line that holds and gives it back as the explanation. FastEnforcer, which looks lines up by a key, keeps them in
  a set and so cannot answer in their order.

What a call needs is built before the clock starts; an answer is timed from the request to the tier.
"""

import importlib.metadata
import json
import sys
import time

import casbin
import cedarpy

with open(sys.argv[1]) as stream:
    given = json.load(stream)
rules, default, calls, tiers = given["rules"], given["default"], given["calls"], given["tiers"]
prefixes = [rule.get("path_prefix", "").rstrip("/") for rule in rules]
enough_decisions, enough_seconds = 20_000, 20
assert len(calls) == len(tiers) > 0
assert all("*" not in rule["capability"] for rule in rules), "rules name capabilities, not patterns"
# JSON's quoting is Cedar's for these.
assert all(text.isprintable() for text in prefixes)


def cedar():
    def policy(rule, prefix):
        same = json.dumps(prefix, ensure_ascii=False)
        below = json.dumps(prefix, ensure_ascii=False)[1:-1].replace("*", "\\*")
        action = json.dumps(rule["capability"])
        return f'permit(principal, action == Action::{action}, resource) when {{ context.path == {same} || context.path like "{below}/*" }};'

    policies = cedarpy.PolicySet.from_str("\n".join(map(policy, rules, prefixes)))
    entities = cedarpy.Entities.from_json_str("[]")
    tier_of = {f"policy{number}": (number, rule["tier"]) for number, rule in enumerate(rules)}
    requests = [
        {
            "principal": {"type": "Agent", "id": call["agent"]},
            "action": {"type": "Action", "id": call["capability"]},
            "resource": {"type": "Gate", "id": "gate"},
            "context": json.dumps({"path": call["path"]}),
        }
        for call in calls
    ]

    def decide(request):
        # Policies are named in the order of the text: `policy0`, `policy1`, …
        reasons = cedarpy.is_authorized(request, policies, entities).diagnostics.reasons
        return min(map(tier_of.__getitem__, reasons))[1] if reasons else default

    return requests, decide


def priority():
    model = casbin.Model()
    model.load_model_from_text(
        """
        [request_definition]
        r = sub, act, path
        [policy_definition]
        p = act, prefix, tier, eft
        [policy_effect]
        e = priority(p.eft) || deny
        [matchers]
        m = r.act == p.act && under(r.path, p.prefix)
        """
    )
    enforcer = casbin.Enforcer(model)
    enforcer.add_function("under", lambda path, prefix: path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"))
    # A line that says the same again is refused, and could not answer first.
    lines = dict.fromkeys((rule["capability"], prefix, rule["tier"], "allow") for rule, prefix in zip(rules, prefixes))
    assert enforcer.add_policies([list(line) for line in lines])
    requests = [(call["agent"], call["capability"], call["path"]) for call in calls]

    def decide(request):
        allowed, line = enforcer.enforce_ex(*request)
        return line[2] if allowed else default

    return requests, decide


for name, engine in [("cedarpy", cedar), ("casbin", priority)]:
    requests, decide = engine()
    # Every call once: the check, and the warm-up.
    for call, request, tier in zip(calls, requests, tiers):
        answer = decide(request)
        assert answer == tier, (name, call, answer, tier)
    samples = []
    clock = time.perf_counter_ns
    end = clock() + enough_seconds * 1_000_000_000
    while len(samples) < enough_decisions and clock() < end:
        for request in requests:
            start = clock()
            decide(request)
            stop = clock()
            samples.append(stop - start)
            if len(samples) == enough_decisions or stop > end:
                break
    samples.sort()
    p50, p99 = (samples[len(samples) * part // 100] / 1000 for part in (50, 99))
    version = importlib.metadata.version(name)
    print(f"{name} {version}: p50 {p50:.1f} µs, p99 {p99:.1f} µs ({len(samples)} decisions, all answers agree)", flush=True)
