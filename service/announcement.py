"""What `jigsight serve` says when it listens: where, to whom, and what judges."""

from service.registry.registry import Registry
from service.registry.view import Entry


def announcement(address: str, registry: Registry, *, without_keys: bool) -> str:
    """The lines for the terminal."""
    lines = [
        f"JigSight listens on {address}",
        f"  documentation  {address}/docs",
        f"  access         {'for anybody on this machine' if without_keys else 'by API keys'}",
    ]
    for entry in registry.entries.values():
        kind = "unreadable" if entry.manifest is None else entry.manifest.kind
        lines.append(f"  category       {entry.category} ({kind}, version {entry.version})")
        lines += [_waiting(address, entry, version) for version in entry.newer]
    lines += [f"  not served     {refusal.file}: {refusal.reason}" for refusal in registry.refused]
    if not registry.entries:
        lines.append(f"  nothing to serve: there is no usable artifact in {registry.folder}")
    return "\n".join(lines)


def _waiting(address: str, entry: Entry, version: str) -> str:
    return (
        f"  newer          {entry.category} version {version} waits; to activate it:\n"
        f"                 curl -X POST {address}/v1/categories/{entry.category}/activate "
        f"-H 'Content-Type: application/json' -d '{{\"version\": \"{version}\"}}'"
    )
