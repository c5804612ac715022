"""The schema for editors and the compiler agree: what one accepts or refuses, the other does too, and each refusal of the
compiler says where.

usage: policy_schema.py KRUXOS
"""

import json
import os
import re
import subprocess
import sys
import tempfile

import yaml
from jsonschema import Draft202012Validator

kruxos = sys.argv[1]
place = re.compile(r"[\w./-]+\.yaml:[1-9]\d*:[1-9]\d*: ")


def run(*arguments):
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run([kruxos, *arguments], env={**os.environ, "KRUXOS_HOME": home}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def value(node):
    """What YAML 1.2's core schema makes of a node, as editors read it: `on` and `17:00` are texts, `<<` is a plain key."""
    if isinstance(node, yaml.SequenceNode):
        return [value(element) for element in node.value]
    if isinstance(node, yaml.MappingNode):
        # A key of JSON is a text, whatever it looks like.
        result = {key.value: value(child) for key, child in node.value}
        assert len(result) == len(node.value), "the same key twice"
        return result
    text = node.value
    if node.style is not None:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"0o[0-7]+|0x[0-9a-fA-F]+", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text


def rule(condition, capability="filesystem.write"):
    """A document of one rule with these conditions, written in flow style."""
    return f"rules:\n  - capability: {capability}\n    tier: notify\n    condition: {condition}\n"


def limit(text):
    return f"capabilities:\n  process.run:\n    tier: notify\n    rate_limit: {text}\n"


def argument(test, name="path", capability="filesystem.write"):
    return rule(f"{{arguments: {{{name}: {test}}}}}", capability)


# name: text, or (file, text) where the file's name matters.
good = {
    "a box by its name": "capabilities:\n  process.run: { tier: notify, sandbox: read-only }\n",
    "a box whatever is missing": "rules:\n  - { capability: process.*, tier: notify, sandbox: { files: full-access, require: best_effort } }\n",
    "a box in an entry's rule": "capabilities:\n  git.*: { tier: notify, rules: [{ condition: { path_prefix: /workspace/a }, tier: notify, sandbox: workspace-write }] }\n",
    "protected names": "protected: [deploy/keys, .env]\n",
    "one protected name": "protected: .env\n",
    "only a name": "name: quiet\n",
    "every key of the organisation": "name: house\nversion: \"2\"\ndescription: all of it\nextends: team-moderate\ndefaults: {tier: notify, locked: true}\nagent_overrides: within_system\ngrants: none\nroles: {dev: auto, reader: explore}\noverrides: []\nrules: []\ncapabilities: {}\n",
    "every key of an agent's file": ("agents/deploy-bot.yaml", "agent: deploy-bot\nname: deploy-bot\nrole: dev\nmode: ask\nextends: team-moderate\ndefaults: {tier: notify}\nrules:\n  - {capability: process.run, tier: notify}\n"),
    "an agent's file with a digit first": ("agents/0-bot.yaml", "agent: 0-bot\ncapabilities: {filesystem.read: {tier: notify}}\n"),
    "a version that looks like a number": "version: 1.0\n",
    "defaults": "defaults: {tier: blocked}\n",
    "defaults that do not bind": "defaults: {tier: blocked, locked: false}\n",
    "tighten only": "agent_overrides: tighten_only\ngrants: allowed\n",
    "every mode": "roles: {a: explore, b: ask, c: auto, d: yolo, e: safe}\n",
    "every tier": "rules:\n  - {capability: filesystem.read, tier: autonomous}\n  - {capability: filesystem.list, tier: notify}\n  - {capability: filesystem.write, tier: approval_required}\n  - {capability: filesystem.delete, tier: blocked}\n",
    "every shape of pattern": "capabilities:\n  \"*\": {tier: notify}\n  filesystem.*: {tier: notify}\n  state.shared.*: {tier: notify}\n  state.shared.get: {tier: notify}\n  filesystem.read: {tier: notify}\n",
    "overrides": "overrides:\n  - {capability: \"*\", tier: blocked, reason: maintenance, locked: true}\n",
    "an entry with all it may have": "capabilities:\n  process.run:\n    tier: notify\n    reason: fine\n    locked: true\n    rate_limit: {max: 3, window: 60}\n    rules:\n      - {condition: {command: git}, tier: autonomous, reason: git, locked: false, rate_limit: {max: 1, window: 1h}}\n",
    "an entry with rules only": "capabilities:\n  filesystem.write:\n    rules:\n      - condition: {content_size_lt: 10240}\n        tier: autonomous\n",
    "conditions as a list": "rules:\n  - capability: filesystem.write\n    tier: notify\n    conditions:\n      - path_prefix: /workspace/bot/\n      - content_size_lt: 10\n        path_not_under: /workspace/bot/secret\n",
    "a condition as a list": rule("[{path_prefix: /workspace}]"),
    "a rate limit with all it may have": limit("{max: 10, window: 3600, on_exceed: approval_required}"),
    "a rate limit that blocks": limit("{max: 1, window: 1, on_exceed: blocked}"),
    "seconds": limit("{max: 1, window: 90s}"),
    "minutes": limit("{max: 1, window: 15m}"),
    "a window in quotes": limit("{max: 1, window: \"3600\"}"),
    "days": limit("{max: 1, window: 7d}"),
    "a month": limit("{max: 1, window: 31d}"),
    "a rule of a list with a rate limit": "rules:\n  - {capability: process.*, tier: notify, rate_limit: {max: 5, window: 1h}}\n",
    "path_prefix": rule("{path_prefix: /workspace/bot}"),
    "path_prefix of several": rule("{path_prefix: [/workspace/a, /workspace/b/]}"),
    "path_not_under": rule("{path_not_under: [/workspace/a, /etc]}"),
    "path_glob": rule("{path_glob: \"/workspace/**/*.md\"}"),
    "path_glob of several": rule("{path_glob: [\"/workspace/*/notes/**\", \"/workspace/?/[a-c].txt\"]}"),
    "content sizes": rule("{content_size_lt: 100, content_size_lte: 99, content_size_gt: 0, content_size_gte: 1}"),
    "command": rule("{command: git}", "process.run"),
    "commands": rule("{command: [git, swift]}", "process.run"),
    "the program that is called true": rule("{command: true}", "process.run"),
    "command_prefix": rule("{command_prefix: [git push, swift build]}", "process.run"),
    "command_glob": rule("{command_glob: \"npm run *\"}", "process.run"),
    "args_contain": rule("{args_contain: --force}", "process.run"),
    "args_contain of several": rule("{args_contain: [--force, -f]}", "process.run"),
    "host": rule("{host: api.example.com}", "network.http_request"),
    "hosts": rule("{host: [api.example.com, \"*.example.org\"]}", "network.*"),
    "url_prefix": rule("{url_prefix: https://a.example/v1}", "network.http_request"),
    "method": rule("{method: [GET, HEAD]}", "network.http_request"),
    "port": rule("{port: 443}", "network.port_check"),
    "ports": rule("{port: [1, 65535]}", "network.port_check"),
    "recipient": rule("{recipient: [a@b.example, c@d.example]}", "email.send"),
    "recipient_domain": rule("{recipient_domain: \"*.b.example\"}", "email.send"),
    "key_prefix": rule("{key_prefix: config/}", "state.shared.set"),
    "an argument in short": argument("main", "branch", "git.push"),
    "equals": argument("{equals: true}", "overwrite"),
    "not_equals": argument("{not_equals: main}", "branch", "git.push"),
    "in": argument("{in: [main, release]}", "branch", "git.push"),
    "not_in": argument("{not_in: [main]}", "branch", "git.push"),
    "matches": argument("{matches: 'feature/[a-z0-9-]+(_v\\d{1,3})?'}", "branch", "git.push"),
    "matches one of several": argument("{matches: [main, 'v\\d+']}", "branch", "git.push"),
    "numbers": argument("{gt: 0, gte: 1, lt: 61, lte: 60}", "timeout_seconds", "process.run"),
    "exists": argument("{exists: false}", "branch", "git.push"),
    "two arguments": rule("{arguments: {branch: main, remote: {in: [origin]}}}", "git.push"),
    "time_between": rule("{time_between: {from: \"09:00\", to: \"17:00\", zone: Europe/Berlin}}"),
    "a time without quotes past midnight": rule("{time_between: {from: 22:00, to: 06:30, zone: UTC}}"),
    "a time to the end of the day": rule("{time_between: {from: \"18:00\", to: \"24:00\", zone: UTC}}"),
    "days of the week": rule("{days: {on: [mon, tue, wed, thu, fri, sat, sun], zone: Europe/Berlin}}"),
    "one day": rule("{days: {on: sun, zone: UTC}}"),
    "session": rule("{session: {label: deploy, age_lt: 1h, calls_lt: 100}}"),
    "session by its age": rule("{session: {age_lt: 3600}}"),
    "all": rule("{all: [{path_prefix: /workspace}, {content_size_lt: 5}]}"),
    "any": rule("{any: [{path_prefix: /workspace}]}"),
    "not": rule("{not: {path_prefix: /workspace}}"),
    "nested conditions": rule("{any: [{not: {all: [{path_prefix: /workspace/a}, {content_size_gt: 5}]}}, {path_glob: /workspace/b}], content_size_lt: 9}"),
    "an alias": "rules:\n  - {capability: filesystem.read, tier: notify, condition: &here {path_prefix: /workspace}}\n  - {capability: filesystem.list, tier: notify, condition: *here}\n",
}

bad = {
    "a box of no kind": "capabilities:\n  process.run: { tier: notify, sandbox: none }\n",
    "a box with a stranger": "capabilities:\n  process.run: { tier: notify, sandbox: { network: all } }\n",
    "a box that requires some": "capabilities:\n  process.run: { tier: notify, sandbox: { require: some } }\n",
    "a list of boxes": "capabilities:\n  process.run: { tier: notify, sandbox: [read-only] }\n",
    "a box without a tier": "capabilities:\n  process.run: { sandbox: read-only }\n",
    "a box of the whole document": "sandbox: read-only\n",
    "nothing protected": "protected: []\n",
    "a map of the protected": "protected: { a: b }\n",
    "a list": "- name: x\n",
    "a text": "policy\n",
    "an unknown key": "nmae: x\n",
    "a key of another product": "notifiers: []\n",
    "name of nothing": "name:\n",
    "an empty name": "name: \"\"\n",
    "name a list": "name: [a]\n",
    "description a map": "description: {a: b}\n",
    "extends a list": "extends: [team-moderate]\n",
    "agent with a capital": ("agents/Bot.yaml", "agent: Bot\n"),
    "agent with a dash first": ("agents/bot.yaml", "agent: -bot\n"),
    "agent of 64 signs": ("agents/bot.yaml", f"agent: {'a' * 64}\n"),
    "agent_overrides in an agent's file": ("agents/bot.yaml", "agent: bot\nagent_overrides: within_system\n"),
    "grants in an agent's file": ("agents/bot.yaml", "agent: bot\ngrants: none\n"),
    "roles in an agent's file": ("agents/bot.yaml", "agent: bot\nroles: {dev: auto}\n"),
    "no such agent_overrides": "agent_overrides: loosen\n",
    "no such grants": "grants: never\n",
    "grants by a truth value": "grants: false\n",
    "no such mode of a role": "roles: {dev: fast}\n",
    "a role of two words": "roles: {release manager: ask}\n",
    "an agent's role with a capital": ("agents/bot.yaml", "agent: bot\nrole: Dev\n"),
    "roles a list": "roles: [dev]\n",
    "no such mode": ("agents/bot.yaml", "agent: bot\nmode: fast\n"),
    "defaults a tier": "defaults: notify\n",
    "defaults without a tier": "defaults: {locked: true}\n",
    "defaults with a mode": "defaults: {tier: notify, mode: ask}\n",
    "defaults locked by a text": "defaults: {tier: notify, locked: \"true\"}\n",
    "rules a map": "rules: {capability: filesystem.read, tier: notify}\n",
    "rules of nothing": "rules:\n",
    "a rule that is a text": "rules: [filesystem.read]\n",
    "overrides a map": "overrides: {filesystem.read: {tier: notify}}\n",
    "capabilities a list": "capabilities:\n  - {capability: filesystem.read, tier: notify}\n",
    "capabilities of nothing": "capabilities:\n",
    "a rule without a capability": "rules: [{tier: notify}]\n",
    "a rule without a tier": "rules: [{capability: filesystem.read}]\n",
    "no such tier": "rules: [{capability: filesystem.read, tier: allow}]\n",
    "a tier with a capital": "rules: [{capability: filesystem.read, tier: Notify}]\n",
    "a tier of a list": "rules: [{capability: filesystem.read, tier: [notify]}]\n",
    "locked by yes": "rules: [{capability: filesystem.read, tier: notify, locked: yes}]\n",
    "locked by a number": "rules: [{capability: filesystem.read, tier: notify, locked: 1}]\n",
    "an unknown key of a rule": "rules: [{capability: filesystem.read, tier: notify, approvers: 2}]\n",
    "rules in a rule of a list": "rules: [{capability: filesystem.read, tier: notify, rules: [{tier: notify}]}]\n",
    "a condition beside the rule's keys": "rules: [{capability: filesystem.read, tier: notify, path_prefix: /a}]\n",
    "a pattern of one word": "capabilities: {filesystem: {tier: notify}}\n",
    "a pattern of five words": "capabilities: {a.b.c.d.e: {tier: notify}}\n",
    "a pattern with a star inside": "capabilities: {\"filesystem.*.read\": {tier: notify}}\n",
    "a pattern with a star in a word": "capabilities: {\"filesystem.re*\": {tier: notify}}\n",
    "a pattern with capitals": "capabilities: {Filesystem.read: {tier: notify}}\n",
    "a pattern with an empty word": "capabilities: {filesystem..read: {tier: notify}}\n",
    "a pattern that ends with a dot": "rules: [{capability: filesystem., tier: notify}]\n",
    "a list of patterns": "rules: [{capability: [filesystem.read], tier: notify}]\n",
    "an entry that is a tier": "capabilities: {filesystem.read: notify}\n",
    "an entry of nothing": "capabilities:\n  filesystem.read:\n",
    "an entry without a tier": "capabilities: {filesystem.read: {}}\n",
    "an entry with a condition of its own": "capabilities: {filesystem.read: {tier: notify, condition: {path_prefix: /a}}}\n",
    "an entry with a capability": "capabilities: {filesystem.read: {tier: notify, capability: filesystem.read}}\n",
    "an entry with a reason and no tier": "capabilities: {filesystem.read: {reason: x, rules: [{condition: {path_prefix: /a}, tier: notify}]}}\n",
    "an entry with a rate limit and no tier": "capabilities: {filesystem.read: {rate_limit: {max: 1, window: 1}, rules: [{condition: {path_prefix: /a}, tier: notify}]}}\n",
    "an entry with no rules in rules": "capabilities: {filesystem.read: {tier: notify, rules: []}}\n",
    "a nested rule with a capability": "capabilities: {filesystem.read: {rules: [{capability: filesystem.read, condition: {path_prefix: /a}, tier: notify}]}}\n",
    "a nested rule without a tier": "capabilities: {filesystem.read: {rules: [{condition: {path_prefix: /a}}]}}\n",
    "nested rules in nested rules": "capabilities: {filesystem.read: {rules: [{condition: {path_prefix: /a}, tier: notify, rules: []}]}}\n",
    "a rate limit of a number": limit("10"),
    "a rate limit of none": limit("{max: 0, window: 60}"),
    "a rate limit below none": limit("{max: -1, window: 60}"),
    "a rate limit of a half": limit("{max: 1.5, window: 60}"),
    "a rate limit without a window": limit("{max: 1}"),
    "a rate limit without a max": limit("{window: 60}"),
    "a window of no time": limit("{max: 1, window: 0}"),
    "a window of 0s": limit("{max: 1, window: 0s}"),
    "a window of years": limit("{max: 1, window: 1y}"),
    "a window of two units": limit("{max: 1, window: 1h30m}"),
    "a window in words": limit("{max: 1, window: an hour}"),
    "on_exceed notify": limit("{max: 1, window: 60, on_exceed: notify}"),
    "an unknown key of a rate limit": limit("{max: 1, window: 60, per: agent}"),
    "a condition of nothing": rule("{}"),
    "a condition of null": rule("null"),
    "conditions of nothing": rule("[]"),
    "conditions with one of nothing": rule("[{path_prefix: /a}, {}]"),
    "a list in a list of conditions": rule("[[{path_prefix: /a}]]"),
    "a condition that is a text": rule("path_prefix"),
    "an unknown condition": rule("{path_prefx: /a}"),
    "a condition of a word and no value": rule("{path_prefix: }"),
    "a relative path_prefix": rule("{path_prefix: notes}"),
    "a path_prefix that climbs": rule("{path_prefix: /workspace/../etc}"),
    "a relative path_not_under": rule("{path_not_under: [/a, b]}"),
    "a path_prefix of none": rule("{path_prefix: []}"),
    "a path_prefix that is a map": rule("{path_prefix: {equals: /a}}"),
    "a relative path_glob": rule("{path_glob: \"*.md\"}"),
    "a path_glob of none": rule("{path_glob: []}"),
    "a list in a list of paths": rule("{path_glob: [[/a]]}"),
    "a content size below none": rule("{content_size_lt: -1}"),
    "a content size with a unit": rule("{content_size_lt: 10k}"),
    "a content size in quotes": rule("{content_size_lt: \"10\"}"),
    "a content size of a list": rule("{content_size_lt: [10]}"),
    "no such comparison": rule("{content_size_eq: 10}"),
    "a command of none": rule("{command: []}", "process.run"),
    "a command of nothing": rule("{command: ~}", "process.run"),
    "an empty command": rule("{command: \"\"}", "process.run"),
    "a command with a blank": rule("{command: git push}", "process.run"),
    "a host that is a URL": rule("{host: https://a.example}", "network.http_request"),
    "a host with a port": rule("{host: a.example:443}", "network.http_request"),
    "a host with a star inside": rule("{host: \"api.*.example\"}", "network.http_request"),
    "a URL without a scheme": rule("{url_prefix: a.example/v1}", "network.http_request"),
    "a URL with a query": rule("{url_prefix: \"https://a.example/?q=\"}", "network.http_request"),
    "a URL with a user": rule("{url_prefix: https://me@a.example/}", "network.http_request"),
    "a method in small letters": rule("{method: get}", "network.http_request"),
    "a domain with an at sign": rule("{recipient_domain: \"@b.example\"}", "email.send"),
    "a host that is a map": rule("{host: {equals: a.example}}", "network.http_request"),
    "port 0": rule("{port: 0}", "network.port_check"),
    "port 65536": rule("{port: [443, 65536]}", "network.port_check"),
    "a port by name": rule("{port: https}", "network.port_check"),
    "ports of none": rule("{port: []}", "network.port_check"),
    "arguments of none": rule("{arguments: {}}"),
    "arguments a list": rule("{arguments: [path]}"),
    "an argument of a list": argument("[a, b]"),
    "an argument of null": argument("null"),
    "an argument of no test": argument("{}"),
    "no such test": argument("{starts_with: a}"),
    "in a text": argument("{in: main}"),
    "in none": argument("{in: []}"),
    "in a map": argument("{in: [{a: b}]}"),
    "equals a list": argument("{equals: [a]}"),
    "less than a text": argument("{lt: many}", "timeout_seconds", "process.run"),
    "less than a fraction": argument("{lt: 1.5}", "timeout_seconds", "process.run"),
    "exists by a text": argument("{exists: maybe}"),
    "matches a map": argument("{matches: {a: b}}"),
    "matches none": argument("{matches: []}"),
    "time_between without a to": rule("{time_between: {from: \"09:00\", zone: UTC}}"),
    "time_between without a zone": rule("{time_between: {from: \"09:00\", to: \"17:00\"}}"),
    "a time of no clock": rule("{time_between: {from: \"25:00\", to: \"17:00\", zone: UTC}}"),
    "a time without minutes": rule("{time_between: {from: \"9\", to: \"17:00\", zone: UTC}}"),
    "an unknown key of time_between": rule("{time_between: {from: \"09:00\", to: \"17:00\", zone: UTC, on: [mon]}}"),
    "days a list": rule("{days: [mon]}"),
    "days of none": rule("{days: {on: [], zone: UTC}}"),
    "days without a zone": rule("{days: {on: [mon]}}"),
    "no such day": rule("{days: {on: [monday], zone: UTC}}"),
    "session of nothing": rule("{session: {}}"),
    "session a text": rule("{session: deploy}"),
    "an unknown key of session": rule("{session: {age_gt: 1h}}"),
    "an age without a unit": rule("{session: {age_lt: long}}"),
    "calls by a text": rule("{session: {calls_lt: few}}"),
    "all of none": rule("{all: []}"),
    "all a map": rule("{all: {path_prefix: /a}}"),
    "a list in all": rule("{all: [[{path_prefix: /a}]]}"),
    "any of nothing": rule("{any: [{}]}"),
    "any of texts": rule("{any: [path_prefix]}"),
    "not a list": rule("{not: [{path_prefix: /a}]}"),
    "not of nothing": rule("{not: {}}"),
    "an unknown condition deep inside": rule("{all: [{any: [{not: {path: /a}}]}]}"),
    "a merge": "x: &x {tier: notify}\ncapabilities:\n  filesystem.read: {<<: *x}\n",
}

# The schema accepts these or cannot read them; only the compiler knows better.
compiler_only = {
    "extends nobody": "name: p\nextends: nope\n",
    "extends itself": "name: p\nextends: p\n",
    "role outside an agent's file": "name: p\nrole: dev\n",
    "mode outside an agent's file": "name: p\nmode: ask\n",
    "another agent's name": ("agents/bot.yaml", "agent: other\n"),
    "content size of a read": rule("{content_size_lt: 10}", "filesystem.read"),
    "a command of a file": rule("{command: git}", "filesystem.read"),
    "arguments of a command of a file": rule("{args_contain: --force}", "filesystem.*"),
    "a host of mail": rule("{host: a.example}", "email.send"),
    "a method of a DNS query": rule("{method: GET}", "network.dns_lookup"),
    "a recipient of a request": rule("{recipient: a@b.example}", "network.http_request"),
    "a state key of a file": rule("{key_prefix: a}", "filesystem.read"),
    "a path of the time": rule("{path_prefix: /workspace}", "system.time"),
    "an impossible condition deep inside": rule("{any: [{path_prefix: /workspace}, {not: {command: git}}]}"),
    "an argument nobody has": argument("main", "branhc", "git.push"),
    "an unknown zone": rule("{time_between: {from: \"09:00\", to: \"17:00\", zone: Europe/Berlim}}"),
    "an unknown zone of days": rule("{days: {on: [mon], zone: Mars/Olympus}}"),
    "a zone that climbs": rule("{days: {on: [mon], zone: ../../etc/passwd}}"),
    "an open group": argument("{matches: \"(a\"}"),
    "an open class": argument("{matches: \"[a\"}"),
    "a class backwards": argument("{matches: \"[z-a]\"}"),
    "nothing to repeat": argument("{matches: \"*a\"}"),
    "a repetition backwards": argument("{matches: \"a{3,1}\"}"),
    "a look ahead": argument("{matches: \"(?=a)b\"}"),
    "a back reference": argument("{matches: '(a)\\1'}"),
    "a command line of two": rule("{command_prefix: \"git push; ls\"}", "process.run"),
    "a command line with a variable": rule("{command_prefix: \"git push $REMOTE\"}", "process.run"),
    "a glob with alternatives": rule("{path_glob: \"/workspace/{a,b}\"}"),
    "a glob with two stars in a word": rule("{path_glob: \"/workspace/a**\"}"),
    "an address in short": rule("{host: \"127.1\"}", "network.http_request"),
    "a URL of no known scheme": rule("{url_prefix: gopher://a.example/}", "network.http_request"),
    "a time that ends when it begins": rule("{time_between: {from: \"09:00\", to: \"09:00\", zone: UTC}}"),
    "a window of more than 31 days": limit("{max: 1, window: 32d}"),
    "a window of a second more than 31 days": limit("{max: 1, window: 2678401}"),
    "a window of more than 64 bits": limit("{max: 1, window: 99999999999999999999}"),
    "a max of more than 64 bits": limit("{max: 99999999999999999999, window: 1}"),
    "a max with a fraction of nothing": limit("{max: 10.0, window: 60}"),
    "a content size with an exponent": rule("{content_size_lt: 1e3}"),
    "a content size in hexadecimal": rule("{content_size_lt: 0x10}"),
    "locked by True": "rules: [{capability: filesystem.read, tier: notify, locked: True}]\n",
    "the same key twice": "name: a\nname: b\n",
    "the same capability twice": "capabilities:\n  filesystem.read: {tier: notify}\n  filesystem.read: {tier: blocked}\n",
    "the same condition twice": rule("{path_prefix: /a, path_prefix: /b}"),
    "a tag": "name: !!str a\n",
    "two documents": "name: a\n---\nname: b\n",
    "an alias of nothing": "name: *a\n",
    "not YAML": "name: [a\n",
    "a tab": "capabilities:\n\tfilesystem.read: {tier: notify}\n",
    "an empty file": "",
    "nothing but a comment": "# soon\n",
}

result = run("config", "schema")
assert result.returncode == 0, result
schema = json.loads(result.stdout)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)

failures = []
for table, cases in [("good", good), ("bad", bad), ("compiler only", compiler_only)]:
    for name, case in cases.items():
        file, text = ("policy.yaml", case) if isinstance(case, str) else case
        try:
            errors = sorted(error.message for error in validator.iter_errors(value(yaml.compose(text, Loader=yaml.BaseLoader))))
        except (yaml.YAMLError, AssertionError, AttributeError) as error:
            assert table == "compiler only", (name, error)
            errors = []
        if bool(errors) != (table == "bad"):
            failures.append((table, name, "the schema says", errors[:3]))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as stream:
                stream.write(text)
            result = run("config", "validate", path)
        code = 0 if table == "good" else 78
        if result.returncode != code:
            failures.append((table, name, "the compiler says", result.returncode, (result.stderr or result.stdout)[:300]))
        elif code != 0 and not place.search(result.stderr):
            failures.append((table, name, "the compiler says no place", result.stderr[:300]))

assert len(good) >= 40 and len(bad) >= 60
if failures:
    for failure in failures:
        print(*failure, file=sys.stderr)
    sys.exit(f"{len(failures)} differences")
print(f"policy schema: {len(good)} good, {len(bad)} bad, {len(compiler_only)} compiler-only, all agree")
