"""Serving metrics to Prometheus: a collector that reads at scrape time, and its HTTP server.

What is measured is not known here: `FleetCollector` asks `read` for the families at every scrape
and keeps nothing between two, so there is nothing that a crash could lose or distort. Telemetry
fails open: a scrape never raises; a store that is away shows as `novawf_store_up 0` and nothing
else of the fleet.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from novawf.errors import NovawfError, OutOfReach, StoreAuthFailed
from novawf.telemetry.counters import Latency
from novawf.telemetry.ports import bind_error, resolve

log = logging.getLogger("novawf.telemetry")

_SLOW_CLIENT_S: Final = 10
"""After so long a client that does not read or send is dropped."""


class FleetCollector(Collector):
    """Families from `read`, which may raise our errors, and `novawf_store_up` in front of them."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read
        self._reading = threading.Lock()
        self._fault = ""

    def collect(self) -> Iterator[Metric]:
        """What one scrape shows. Scrapes wait for each other: the store is asked once at a time."""
        up, families = self._families()
        yield GaugeMetricFamily(
            "novawf_store_up", "Whether the store answered this scrape.", value=up
        )
        yield from families

    def _families(self) -> tuple[int, list[Metric]]:
        with self._reading:
            try:
                families = list(self._read())
            except (OutOfReach, StoreAuthFailed) as error:
                self._note(f"the store is out of reach: {error}")
                return 0, []
            except Exception as error:
                # Anything: a scrape that raises would hide that the store is up.
                what = str(error) if isinstance(error, NovawfError) else repr(error)
                self._note(f"the store's content cannot be shown: {what}")
                return 1, []
            self._note("")
            return 1, families

    def _note(self, fault: str) -> None:
        """Log a fault when it comes and when it goes, not at every scrape."""
        if fault and not self._fault:
            log.warning("metrics: %s", fault)
        elif self._fault and not fault:
            log.warning("metrics: all well again")
        self._fault = fault


class MetricsServer:
    """`/metrics` over HTTP in threads of its own, with the process metrics of this process."""

    def __init__(
        self, collector: Collector, host: str, port: int, what: str = "metrics (--metrics-port)"
    ) -> None:
        """`port` 0 takes any free one; `what` names the port in errors."""
        self._collector = collector
        self._what = what
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.host = host
        self.port = port

    def start(self) -> None:
        """Listen; `port` is the real one afterwards. Raises PortInUse, InvalidConfig."""
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(self._collector)
        try:
            server = _Server(self.host, self.port)
        except (OSError, OverflowError) as error:
            raise bind_error(self.host, self.port, self._what, error) from None
        server.set_app(make_wsgi_app(registry))
        self.port = server.server_port
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. A repeat does nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        if self._thread is not None:
            self._thread.join(1)


class _Handler(WSGIRequestHandler):
    timeout = _SLOW_CLIENT_S

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


class _Server(ThreadingWSGIServer):
    def __init__(self, host: str, port: int) -> None:
        self.address_family, address = resolve(host, port)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the reverse name look-up of the base class, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle is its own affair."""
        log.debug("metrics: request of %s failed", client_address, exc_info=True)


def histogram(name: str, documentation: str, latency: Latency) -> HistogramMetricFamily:
    """A latency as a histogram family, in seconds."""
    return HistogramMetricFamily(
        name,
        documentation,
        buckets=[
            ("+Inf" if math.isinf(bound_s) else repr(bound_s), count)
            for bound_s, count in latency.buckets
        ],
        sum_value=latency.sum_s,
    )
