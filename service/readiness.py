"""Why parts cannot be judged, as far as the process knows it by itself: for probes, and for the metrics."""

from service.state import Service


def ailments(service: Service) -> list[str]:
    """The reasons, in words; nothing if there are none. Neither the database nor the disk is asked."""
    reasons = service.registry.ailments()
    if service.phase.stopping:
        reasons.append("the service is stopping")
    reasons += [
        f"the {name} takes no parts"
        for name, worker in (("engine", service.engine), ("writer", service.writer))
        if not worker.alive
    ]
    return reasons
