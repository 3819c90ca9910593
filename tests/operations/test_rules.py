"""Rules fire when they should, by Prometheus' own tool; and each leads to a panel and a section."""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics
from tests.conftest import REPOSITORY
from tests.operations.boards.files import BOARDS
from tests.operations.programs import program
from tests.operations.rules import RULES, alerts, hurried, rules, seconds

UP = {'up{job="vtag",instance="a"}': "1x250"}
ALL_FINE = {'vtag_requests_total{instance="a",endpoint="/x",outcome="2xx"}': "0+60x250"}
_COUNT = 'vtag_request_duration_seconds_count{endpoint="/classify"}'
_SOON = 'vtag_request_duration_seconds_bucket{endpoint="/classify",le="2.5"}'
_SPOOL = 'vtag_spool_bytes{instance="a",kind="%s"}'


@dataclass(frozen=True)
class Case:
    """Series, a value every 15 s, in which one alert fires, and in which it does not."""

    fires: Mapping[str, str]
    calm: Mapping[str, str]
    others: frozenset[str] = field(default_factory=frozenset)
    """Alerts that fire with it."""


def gauge(series: str, bad: float, good: float) -> Case:
    """A value that is bad or good all the time."""
    return Case({series: f"{bad}x250"}, {series: f"{good}x250"})


def counter(series: str, bad: float, good: float) -> Case:
    """Steps in 15 s."""
    return Case({series: f"0+{bad}x250"}, {series: f"0+{good}x250"})


def requests(failed: float, *others: str) -> Case:
    """Of 60 requests so many fail, for hours; against one in 600."""
    bad = 'vtag_requests_total{instance="a",endpoint="/x",outcome="5xx"}'
    return Case(
        ALL_FINE | {bad: f"0+{failed}x250"}, ALL_FINE | {bad: "0+0.1x250"}, frozenset(others)
    )


CASES = {
    "VtagDown": gauge('up{job="vtag",instance="a"}', 0, 1),
    "VtagAbsent": Case({'up{job="vtag",instance="a"}': "_x250"}, {}),
    "VtagNotReady": gauge('vtag_ready{instance="a"}', 0, 1),
    "VtagIndexDown": gauge('vtag_component_up{component="index"}', 0, 1),
    "VtagEncoderDown": gauge('vtag_component_up{component="encoder"}', 0, 1),
    "VtagDecoderDown": gauge('vtag_component_up{component="decoder"}', 0, 1),
    "VtagDeviceDown": gauge('vtag_encoder_device_up{device="1"}', 0, 1),
    "VtagRedisDown": gauge('vtag_redis_up{use="text_cache"}', 0, 1),
    "VtagErrorBudgetBurnsFast": requests(6, "VtagErrorBudgetBurnsSlowly"),
    "VtagErrorBudgetBurnsSlowly": requests(2.5),
    "VtagSlowAnswers": Case(
        {_COUNT: "0+60x250", _SOON: "0+50x250"}, {_COUNT: "0+60x250", _SOON: "0+59x250"}
    ),
    "VtagOverloaded": Case(
        ALL_FINE | {'vtag_rejected_total{instance="a",reason="deadline"}': "0+6x250"},
        ALL_FINE | {'vtag_rejected_total{instance="a",reason="auth"}': "0+6x250"},
    ),
    "VtagQueueOld": gauge('vtag_queue_oldest_age_seconds{instance="a",kind="clips"}', 11, 3),
    "VtagDecodersSaturated": Case(
        {
            'vtag_decode_busy_seconds_total{instance="a"}': "0+28.75x250",
            'vtag_decode_workers{instance="a",state="alive"}': "2x250",
        },
        {
            'vtag_decode_busy_seconds_total{instance="a"}': "0+15x250",
            'vtag_decode_workers{instance="a",state="alive"}': "2x250",
        },
    ),
    "VtagEncoderSaturated": counter(
        'vtag_encoder_device_busy_seconds_total{instance="a",device="0"}', 14.5, 7.5
    ),
    "VtagSpoolFull": Case(
        {_SPOOL % "free": "9x250", _SPOOL % "reserve": "10x250", _SPOOL % "size": "20x250"},
        {_SPOOL % "free": "19x250", _SPOOL % "reserve": "10x250", _SPOOL % "size": "20x250"},
    ),
    "VtagSpoolNearlyFull": Case(
        {_SPOOL % "free": "15x250", _SPOOL % "reserve": "10x250", _SPOOL % "size": "100x250"},
        {_SPOOL % "free": "25x250", _SPOOL % "reserve": "10x250", _SPOOL % "size": "100x250"},
    ),
    "VtagMediaNearlyFull": Case(
        {"vtag_media_bytes": "95x250", "vtag_media_limit_bytes": "100x250"},
        {"vtag_media_bytes": "0x250", "vtag_media_limit_bytes": "0x250"},  # none are kept
    ),
    "VtagTextCacheCold": Case(
        {
            'vtag_text_cache_requests_total{instance="a",result="memory"}': "0+300x250",
            'vtag_text_cache_requests_total{instance="a",result="miss"}': "0+700x250",
        },
        {'vtag_text_cache_requests_total{instance="a",result="miss"}': "0+60x250"},
    ),
    "VtagDecodersKilled": Case(
        {'vtag_decode_killed_total{instance="a",reason="signal"}': "0+5x250"},
        {'vtag_decode_killed_total{instance="a",reason="left"}': "0+5x250"},
    ),
    "VtagEncoderRestarts": counter(
        'vtag_worker_restarts_total{instance="a",worker="encoder"}', 1, 0.01
    ),
    "VtagBadEmbeddings": counter(
        'vtag_batch_retries_total{instance="a",kind="clips",cause="bad_output"}', 1, 0
    ),
    "VtagSandboxIncomplete": gauge('vtag_decode_sandbox{instance="a",layer="files"}', 0, 1),
    "VtagHostileInput": Case(
        {
            'vtag_requests_total{instance="a",endpoint="/x",outcome="4xx"}': "0+100x250",
            'vtag_input_errors_total{instance="a",code="no_frames"}': "0+70x250",
        },
        {
            'vtag_requests_total{instance="a",endpoint="/x",outcome="4xx"}': "0+1000x250",
            'vtag_input_errors_total{instance="a",code="no_frames"}': "0+70x250",
        },
    ),
    "VtagUnauthorised": counter('vtag_rejected_total{instance="a",reason="auth"}', 100, 1),
    "VtagActivationRefused": counter(
        'vtag_activations_total{instance="a",outcome="refused"}', 1, 0
    ),
    "VtagLambdaChanged": Case({"vtag_lambda": "0+0.001x250"}, {"vtag_lambda": "0.5x250"}),
    "VtagReplicasDiffer": Case(
        {'vtag_lambda{instance="a"}': "0.5x250", 'vtag_lambda{instance="b"}': "0.7x250"},
        {'vtag_lambda{instance="a"}': "0.5x250", 'vtag_lambda{instance="b"}': "0.5x250"},
    ),
    "VtagJobsFail": counter('vtag_jobs_ended_total{kind="reindex",outcome="failed"}', 1, 0),
    "VtagJobsPileUp": gauge('vtag_jobs{instance="a",state="waiting"}', 15, 3),
    "VtagJobWaits": gauge('vtag_job_age_seconds{instance="a"}', 4000, 60),
    "VtagWebhooksDead": counter('vtag_webhook_deliveries_total{instance="a",outcome="dead"}', 1, 0),
}


def promtool(*arguments: str) -> None:
    """Run it; what it finds wrong fails the test."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _group(
    name: str, series: Mapping[str, str], expected: set[str], *, seconds_for: float
) -> dict[str, Any]:
    """One test of promtool: what fires when ranges of minutes are full and `for` is over."""
    at = 17 * 60 + seconds_for
    return {
        "name": name,
        "interval": "15s",
        "input_series": [{"series": one, "values": each} for one, each in {**UP, **series}.items()],
        "promql_expr_test": [
            {
                "expr": "count by (alertname) (ALERTS{alertstate='firing'})",
                "eval_time": f"{at:.0f}s",
                "exp_samples": [
                    {"labels": f'{{alertname="{one}"}}', "value": 1} for one in sorted(expected)
                ],
            }
        ],
    }


def test_promtool_accepts_the_files(tmp_path: Path) -> None:
    """Rules and configuration, and the rules as the drill hurries them."""
    promtool("check", "rules", str(RULES))
    promtool("check", "config", str(RULES.parent / "prometheus.yml"))
    (tmp_path / "hurried.yml").write_text(hurried())
    promtool("check", "rules", str(tmp_path / "hurried.yml"))


@pytest.mark.slow
def test_every_alert_fires_when_it_should_and_not_else(tmp_path: Path) -> None:
    """Each after its time, with no other beside it but those that are named; and none when calm."""
    assert set(CASES) == set(alerts())
    calm = {series: values for case in CASES.values() for series, values in case.calm.items()}
    groups = [_group("calm", calm, set(), seconds_for=1800)]
    for name, case in CASES.items():
        wait = seconds(alerts()[name]["for"])
        groups.append(_group(name, case.fires, {name, *case.others}, seconds_for=wait))
    written = tmp_path / "rules_test.yml"
    written.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": groups})
    )
    promtool("test", "rules", str(written))


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_alert_leads_somewhere(name: str) -> None:
    """To a section of the runbook, and to a panel of a board that there is."""
    rule = alerts()[name]
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    file, section = rule["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^## (\w+)$", (REPOSITORY / file).read_text(), re.MULTILINE)
    assert section == name.lower()
    assert name in headings
    board, panel = rule["annotations"]["panel"].split(" / ", 1)
    [found] = [each for each in BOARDS if each.title == f"vtag {board[0].lower()}{board[1:]}"]
    assert panel in {each.title for row in found.rows.values() for each in row}


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    """Nor one twice."""
    text = (REPOSITORY / "deploy" / "RUNBOOK.md").read_text()
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == sorted(alerts())


def test_rules_ask_for_metrics_that_there_are() -> None:
    """Of the service, or recorded by another rule."""
    found = json.dumps(rules(), ensure_ascii=False)
    exported = {name for each in Metrics().described() for name in each.series}
    each = (rule for group in rules()["groups"] for rule in group["rules"])
    recorded = {rule["record"] for rule in each if "record" in rule}
    assert set(re.findall(r"\bvtag_\w+", found)) <= exported
    assert set(re.findall(r"\bvtag:[\w:]+", found)) <= recorded
