"""What `jigsight serve` says when it listens: where, to whom, and what judges."""

from service.registry.registry import Registry
from service.registry.view import Entry


def announcement(address: str, registry: Registry, *, without_keys: bool) -> str:
    """The lines for the terminal."""
    authorisation = "" if without_keys else ' -H "Authorization: Bearer $JIGSIGHT_KEY"'
    lines = [
        f"JigSight listens on {address}",
        f"  documentation  {address}/docs",
        f"  access         {'for anybody on this machine' if without_keys else 'by API keys'}",
    ]
    for entry in registry.entries.values():
        lines.append(_judging(registry, entry))
        lines += [_waiting(address, entry, version, authorisation) for version in entry.newer]
    lines += [f"  not served     {refusal.file}: {refusal.reason}" for refusal in registry.refused]
    if not registry.entries:
        lines.append(f"  nothing to serve: there is no usable artifact in {registry.folder}")
    return "\n".join(lines)


def _judging(registry: Registry, entry: Entry) -> str:
    """What judges a category; or why nothing does, though parts of it will be sent."""
    if entry.problem is not None and registry.loaded(entry.category) is None:
        return f"  not served     {entry.category}, version {entry.version}: {entry.problem}"
    kind = "unreadable" if entry.manifest is None else entry.manifest.kind
    return f"  category       {entry.category} ({kind}, version {entry.version})"


def _waiting(address: str, entry: Entry, version: str, authorisation: str) -> str:
    return (
        f"  newer          {entry.category} version {version} waits; to activate it:\n"
        f"                 curl -X POST {address}/v1/categories/{entry.category}/activate{authorisation} "
        f"-H 'Content-Type: application/json' -d '{{\"version\": \"{version}\"}}'"
    )
