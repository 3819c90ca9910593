"""``vtag index``: load a folder or a bucket of videos into the index, on one machine or many."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from anyio.from_thread import BlockingPortal, start_blocking_portal

from service import logs
from service.bulk import ray_environment
from service.bulk.checkpoint import Checkpoint, CheckpointError
from service.bulk.plan import Plan, make_plan
from service.bulk.progress import Progress
from service.bulk.source import SourceError, SourceFile, open_source
from service.bulk.writer import Writer
from service.encode.device import Device, DeviceError, parse_device
from service.encode.space import round_clip_weight
from service.index.choice import choose_index
from service.index.collection import DEFAULT_COLLECTION, CollectionMissingError
from service.index.postgres import PostgresIndex
from service.index.video_index import IndexSetupError, IndexUnavailableError
from service.kept_clip_weight import KeptClipWeight
from service.settings import Settings, SettingsError, load
from service.state_folder import StateFolder, StateFolderError
from service.store import ArtefactStore
from service.videoclip.manifest import ArtefactError, Manifest

_SOME_FAILED: Final = 1
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130

_MISTAKES: Final = (
    ArtefactError,
    CheckpointError,
    CollectionMissingError,
    DeviceError,
    IndexSetupError,
    SettingsError,
    SourceError,
    StateFolderError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vtag``; return the exit code: 1 if videos failed, 2 for what the caller can mend."""
    asked = _parser().parse_args(arguments)
    if find_spec("ray") is None:
        return _refuse(["--engine ray needs Ray: pip install 'vtag[cpu,ray]'"])
    try:
        settings = load()
        logs.configure(settings.log_level, style=settings.log_format)
        return _index(asked, settings)
    except SettingsError as error:
        return _refuse(error.lines)
    except CollectionMissingError as error:
        return _refuse([f"--collection: there is no collection {str(error)!r}"])
    except (ValueError, *_MISTAKES) as error:
        return _refuse([str(error)])
    except IndexUnavailableError:
        _refuse(["the database does not answer, or refuses; the same command goes on from here"])
        return _SOME_FAILED
    except ConnectionError as error:
        return _refuse([f"--address: no cluster there ({str(error).splitlines()[0][:200]})"])
    except KeyboardInterrupt:
        print("vtag: interrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vtag", description="Tag and search videos.")
    parser.add_argument("--version", action="version", version=f"vtag {version('vtag')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    index = commands.add_parser(
        "index",
        help="load many videos into the index",
        description="Load all videos of a folder or a bucket into the index. Settings are those of"
        " the service (VTAG_DATABASE_URL, VTAG_MODEL_STORE, VTAG_DEVICE, ...). What is done is"
        " written down: the same command goes on after a kill. Videos stay where they are.",
    )
    index.add_argument("source", help="folder, or s3://BUCKET/PREFIX")
    index.add_argument("--engine", choices=["ray"], default="ray", help="what runs it")
    index.add_argument(
        "--address",
        help="of a Ray cluster (auto: the one of this machine);"
        " left out: one is started here for this command",
    )
    index.add_argument("--collection", default=DEFAULT_COLLECTION, help="that they go to")
    index.add_argument(
        "--lambda",
        dest="clip_weight",
        type=float,
        metavar="L",
        help="share of CLIP's weights; left out: that of the collection, else the artefact's",
    )
    index.add_argument("--segment-seconds", type=float, metavar="S", help="length of segments")
    index.add_argument("--decoders", type=int, metavar="N", help="cores that decode")
    index.add_argument("--encoders", type=int, metavar="N", help="devices that encode")
    index.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="what is done; left out: one for these arguments in VTAG_DATA_DIR/bulk",
    )
    index.add_argument("--retry-failed", action="store_true", help="videos that failed before, too")
    return parser


def _index(asked: argparse.Namespace, settings: Settings) -> int:
    source = open_source(asked.source)
    if asked.segment_seconds is not None and not 0.1 <= asked.segment_seconds <= 3600:
        raise ValueError(f"--segment-seconds: 0.1 to 3600, not {asked.segment_seconds:g}")
    if asked.clip_weight is not None and not 0 <= asked.clip_weight <= 1:
        raise ValueError(f"--lambda: 0 to 1, not {asked.clip_weight:g}")
    # Before anything is started: what cannot be listed is told at once.
    listed = sorted(source.files(), key=lambda file: file.name)
    device = parse_device(settings.device.split(",")[0])
    store = ArtefactStore(settings.model_store)
    manifest = store.active()
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        index = stack.enter_context(_opened(settings, portal))
        plan = make_plan(
            settings,
            source=source,
            folder=store.folder(manifest.name, manifest.revision),
            manifest=manifest,
            collection=asked.collection,
            clip_weight=_clip_weight(asked, settings, manifest, portal=portal, index=index),
            segment_seconds=asked.segment_seconds,
        )
        path = asked.checkpoint or settings.data_dir / "bulk" / f"{_name(asked.source, plan)}.jsonl"
        checkpoint = Checkpoint(path)
        stack.callback(checkpoint.close)
        writer = Writer(
            plan,
            load=lambda batch: portal.call(lambda: index.add_many(batch, space=plan.space)),
            checkpoint=checkpoint,
        )
        status = _run(asked, plan, listed, device=device, writer=writer, checkpoint=checkpoint)
        if writer.videos:
            print("building the graph for search, where there is enough", file=sys.stderr)
            portal.call(index.build_graphs)
        return status


@contextmanager
def _opened(settings: Settings, portal: BlockingPortal) -> Iterator[PostgresIndex]:
    """Lend the index: the server that is set, or the embedded one of a service that is stopped."""
    with ExitStack() as stack:
        if settings.database_url is None:
            folder = StateFolder(settings.data_dir)
            folder.acquire()
            stack.callback(folder.release)
        index = choose_index(settings, data_dir=settings.data_dir)
        stack.callback(portal.call, index.close)
        portal.call(index.start)
        yield index


def _clip_weight(
    asked: argparse.Namespace,
    settings: Settings,
    manifest: Manifest,
    *,
    portal: BlockingPortal,
    index: PostgresIndex,
) -> float:
    """The λ that is asked for, else where searches of the collection look, else what is served."""
    active = portal.call(index.active_space, asked.collection)
    if asked.clip_weight is not None:
        return round_clip_weight(asked.clip_weight)
    if active is not None and (active.name, active.revision) == (manifest.name, manifest.revision):
        return active.clip_weight
    kept = KeptClipWeight(settings.data_dir / "lambda.json")
    served = kept.read(name=manifest.name, revision=manifest.revision)
    return round_clip_weight(manifest.default_clip_weight if served is None else served)


def _name(source: str, plan: Plan) -> str:
    """One for each load: of the same files elsewhere, or in another space, nothing is done yet."""
    facts = (str(open_source(source)), plan.collection, plan.space.id, plan.segment_seconds)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _run(
    asked: argparse.Namespace,
    plan: Plan,
    listed: Sequence[SourceFile],
    *,
    device: Device,
    writer: Writer,
    checkpoint: Checkpoint,
) -> int:
    files = [file for file in listed if checkpoint.wants(file, failed_again=asked.retry_failed)]
    print(
        f"{len(listed)} videos in {asked.source}, {len(listed) - len(files)} done before;"
        f" space {plan.space.id}, collection {plan.collection!r}",
        file=sys.stderr,
    )
    if not files:
        return 0
    ray_environment.prepare(own_cluster=asked.address is None)
    # Seconds, and 200 MB: only once there is something to do.
    from service.bulk import ray_engine

    print("starting Ray" if asked.address is None else "joining Ray", file=sys.stderr)
    with ray_engine.cluster(asked.address) as resources:
        workers = ray_engine.choose_workers(
            resources, decoders=asked.decoders, encoders=asked.encoders, device=device
        )
        progress = Progress(len(files), checkpoint=checkpoint, writer=writer)
        try:
            for row in ray_engine.rows(plan, files, workers=workers):
                writer.take(row)
                progress.show()
            writer.flush()
        except ray_engine.FAILURES as error:
            print(f"vtag: Ray: {ray_engine.first_line(error)}", file=sys.stderr)
            return _SOME_FAILED
        finally:
            progress.finish()
    return _SOME_FAILED if checkpoint.outcomes["failed"] else 0


def _refuse(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"vtag: {line}", file=sys.stderr)
    return _USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
