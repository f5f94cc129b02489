"""Providers of OpenTelemetry's SDK that keep in memory what a session gives them."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from face_async import Telemetry


class Seen:
    """Providers of the SDK, and what was given to them."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(tracers, MeterProvider([self._reader], shutdown_on_exit=False))

    @property
    def spans(self):
        return self._exporter.get_finished_spans()

    def points(self, name):
        """Return what a histogram holds: attributes, how many values there are, and their sum."""
        return [(dict(point.attributes), point.count, point.sum) for point in self._data(name)]

    def values(self, name):
        """Return the values of a counter."""
        return [point.value for point in self._data(name)]

    def _data(self, name):
        [metric] = [metric for metric in self.metrics if metric.name == name]
        return metric.data.data_points

    @property
    def metrics(self):
        [resource] = self._reader.get_metrics_data().resource_metrics
        [scope] = resource.scope_metrics
        return scope.metrics

    @property
    def everything_measured(self):
        """All metrics as one text."""
        return self._reader.get_metrics_data().to_json()
