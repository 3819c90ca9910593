"""Open an artefact of a model store, with its folder in every complaint."""

from pathlib import Path

from service.videoclip.manifest import ArtefactError, Manifest, load_manifest, verify_files


def open_artefact(folder: Path) -> Manifest:
    """The manifest of an artefact whose files are all there and as they were published.

    Raises ArtefactError, which names the file with its folder: here, unlike in a service, there
    may be several artefacts.
    """
    try:
        manifest = load_manifest(folder)
        verify_files(folder, manifest)
    except ArtefactError as error:
        raise ArtefactError(
            str(folder / error.file), expected=error.expected, found=error.found
        ) from error
    return manifest
