"""Webhooks over a real Postgres to a real receiver: signed, tried again, given up, never astray."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.errors import ApiError
from service.hosts import Address
from service.ids import new_id
from service.index.database import Database
from service.jobs.records import JobRecords
from service.jobs.webhook_records import Webhook, WebhookRecords
from service.jobs.webhooks import Webhooks
from service.metrics import Metrics
from service.schemas_jobs import WebhookOptions
from service.url_guard import UrlGuard
from service.webhook_secrets import read_secrets
from tests.receiver import SECRET, Receiver, receiver

pytestmark = pytest.mark.anyio


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    """A receiver."""
    with receiver() as found:
        yield found


class Post:
    """Jobs and what delivers their webhooks."""

    def __init__(self, jobs: JobRecords, webhooks: Webhooks) -> None:
        self.jobs = jobs
        self.webhooks = webhooks

    async def send(self, url: str, **options: Any) -> str:
        """A job that waits, with a webhook; its id."""
        job_id = new_id("job")
        wanted = WebhookOptions(url=url, **options)
        await self.jobs.add(job_id, kind="step", request={}, max_waiting=99, webhook=wanted)
        return job_id

    async def end(self, state: Any) -> None:
        """Run the oldest job that waits to this end."""
        waiting = await self.jobs.list(limit=99, before=None, states=["queued"], kind="step")
        job = await self.jobs.begin(waiting[-1].id)
        assert job is not None
        await self.jobs.finish(job, state, problem={"code": "x"} if state == "failed" else None)

    async def until(self, job_id: str, fits: Callable[[Webhook], bool]) -> Webhook:
        """The webhook once it fits."""
        async with asyncio.timeout(60):
            while True:
                found = await self.webhooks.records.get(job_id)
                assert found is not None
                if fits(found):
                    return found
                await asyncio.sleep(0.05)


@asynccontextmanager
async def post(
    dsn: str, *, internal: str = "", attempts: int = 3, guard: UrlGuard | None = None
) -> AsyncIterator[Post]:
    """Start jobs' records and deliveries on a real database."""
    database = Database(dsn)
    await database.start()
    jobs = JobRecords(database, owner="test")
    webhooks = Webhooks(
        WebhookRecords(database),
        guard=guard
        or UrlGuard(hosts=("example.org",), plain_http=False, internal=frozenset({internal})),
        secrets=(SECRET,),
        attempts=attempts,
        retry_seconds=0.01,
        at_once=4,
        metrics=Metrics(),
    )
    try:
        await webhooks.start()
        yield Post(jobs, webhooks)
    finally:
        await webhooks.stop()
        await database.close()


@pytest.mark.parametrize("state", ["succeeded", "failed"])
async def test_the_end_of_a_job_is_told_with_a_signature(
    postgres: str, hooks: Receiver, state: str
) -> None:
    """Once, after the end, with what happened; nothing is told before."""
    async with post(postgres, internal=hooks.host) as found:
        job_id = await found.send(hooks.url)
        await asyncio.sleep(0.1)
        assert hooks.bodies == []
        await found.end(state)
        done = await found.until(job_id, lambda webhook: webhook.state == "delivered")
        assert (done.attempts, done.last_status, done.last_error) == (1, 200, None)
        assert done.delivered_at is not None
    event = hooks.event()
    assert (event["type"], event["data"]["id"]) == (f"job.{state}", job_id)
    assert (event["data"]["error"] is None) == (state == "succeeded")
    assert hooks.ids == {done.webhook_id}
    assert len(hooks.bodies) == 1


async def test_what_is_not_taken_is_sent_again_under_the_same_id(
    postgres: str, hooks: Receiver
) -> None:
    """Errors and redirects are no success, over a restart; each try is signed anew."""
    hooks.statuses = [500, 302, 204]
    async with post(postgres, internal=hooks.host) as found:
        job_id = await found.send(hooks.url)
        await found.end("succeeded")
        await found.until(job_id, lambda webhook: webhook.last_status is not None)
    async with post(postgres, internal=hooks.host) as found:
        done = await found.until(job_id, lambda webhook: webhook.state == "delivered")
    assert (done.attempts, done.last_status) == (3, 204)
    assert len(hooks.ids) == 1
    assert [hooks.event(number)["type"] for number in range(3)] == ["job.succeeded"] * 3


@pytest.mark.parametrize(("statuses", "tries"), [([503], 3), ([410], 1)])
async def test_a_webhook_is_given_up(
    postgres: str, hooks: Receiver, statuses: list[int], tries: int
) -> None:
    """After the last try, or at once when the receiver says that it is gone."""
    hooks.statuses = statuses
    async with post(postgres, internal=hooks.host) as found:
        job_id = await found.send(hooks.url)
        await found.end("succeeded")
        dead = await found.until(job_id, lambda webhook: webhook.state == "dead")
        assert (dead.attempts, dead.last_status) == (tries, statuses[0])
        assert dead.last_error == f"The receiver answered {statuses[0]}."
    assert len(hooks.bodies) == tries


async def test_a_receiver_that_is_away_is_said_so(postgres: str, hooks: Receiver) -> None:
    """No status, and a sentence of ours."""
    async with post(postgres, internal="127.0.0.1:9", attempts=1) as found:
        job_id = await found.send("http://127.0.0.1:9/")
        await found.end("succeeded")
        dead = await found.until(job_id, lambda webhook: webhook.state == "dead")
        assert (dead.last_status, dead.last_error) == (None, "The receiver could not be reached.")
    assert hooks.bodies == []


async def test_only_the_ends_that_were_asked_for_are_told(postgres: str, hooks: Receiver) -> None:
    """However a job ends: here it is cancelled while it waits, by another service's hand."""
    async with post(postgres, internal=hooks.host) as found:
        unwanted = await found.send(hooks.url, events=["job.succeeded"])
        wanted = await found.send(hooks.url, events=["job.cancelled"])
        for job_id in (unwanted, wanted):
            await found.jobs.cancel(job_id)
        await found.until(wanted, lambda webhook: webhook.state == "delivered")
        await found.until(unwanted, lambda webhook: webhook.state == "unwanted")
    assert [hooks.event()["data"]["id"], len(hooks.bodies)] == [wanted, 1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "ftp://example.org/",
        "http://example.org/",
        "https://user@example.org/",
        "https://example.org:8443/",
        "https://other.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/",
        "https://example.org/" + "x" * 3000,
    ],
)
async def test_what_may_not_be_told_is_refused_at_once(postgres: str, url: str) -> None:
    """Other hosts, schemes, ports and names: nothing is resolved, nothing is connected."""

    async def never(host: str, port: int) -> Sequence[Address]:
        raise AssertionError((host, port))

    guard = UrlGuard(hosts=("example.org",), plain_http=False, resolver=never)
    async with post(postgres, guard=guard) as found:
        found.webhooks.check(WebhookOptions(url="https://example.org/hooks"))
        with pytest.raises(ApiError) as refused:
            found.webhooks.check(WebhookOptions.model_construct(url=url))
        assert refused.value.code == "webhook_not_allowed"


async def test_a_name_that_leads_home_is_not_followed(postgres: str, hooks: Receiver) -> None:
    """An allowed name whose address is private is refused after it was resolved, each time."""

    async def home(host: str, port: int) -> Sequence[Address]:
        del host, port
        return [ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("127.0.0.1")]

    guard = UrlGuard(hosts=("example.org",), plain_http=False, resolver=home)
    async with post(postgres, guard=guard, attempts=2) as found:
        job_id = await found.send("https://example.org/")
        await found.end("succeeded")
        dead = await found.until(job_id, lambda webhook: webhook.state == "dead")
        assert dead.attempts == 2
        assert dead.last_error == "The host of the URL is not on the public internet."
    assert hooks.bodies == []


async def test_without_a_secret_no_webhook_is_taken(postgres: str) -> None:
    """What could not be signed is refused when it is asked for."""
    async with post(postgres) as found:
        found.webhooks._secrets = ()
        with pytest.raises(ApiError, match="secret"):
            found.webhooks.check(WebhookOptions(url="https://example.org/"))


@pytest.mark.parametrize(
    "content",
    ["", "# only words\n", "whsec_", "whsec_c2hvcnQ=", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
)
def test_a_file_of_secrets_holds_secrets(tmp_path: Path, content: str) -> None:
    """Refused at the start, and never shown."""
    path = tmp_path / "secrets"
    path.write_text(content)
    with pytest.raises(ValueError, match="secret") as refused:
        read_secrets(path)
    assert "C2FV" not in str(refused.value)
    path.write_text(f"# new\n{SECRET}\n\n{SECRET}\n")
    assert read_secrets(path) == (SECRET, SECRET)
