"""Writes dashboard.json, a dashboard for Grafana: `python3 dashboard.py > dashboard.json`.

Needs grafana-foundation-sdk from PyPI, in the version of tests/monitoring/requirements.txt. From top to bottom it asks
what a person asks: does everybody hold a token, and for how long; what needs somebody; do renewals come in time; do
deliveries; how is the machine.
"""

import itertools
import json
import sys

from grafana_foundation_sdk.builders import common as builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# What the reader chose.
WHO = 'job="renewd",instance=~"$instance"'


def query(expression, legend=""):
    """Metrics are written as `name{}` or `name{label="x"}`: the chosen instances are added."""
    expression = expression.replace("{}", "{" + WHO + "}").replace("{+", "{" + WHO + ",")
    return prometheus.Dataquery().expr(expression).legend_format(legend).datasource(SOURCE)


def steps(*pairs):
    found = [Threshold(value=value, color=color) for value, color in pairs]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def number(title, says, expression, thresholds, unit="short"):
    return (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .height(5)
        .span(4)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("none")
        .thresholds(thresholds)
        .with_target(query(expression).instant())
    )


def lines(title, says, unit, *queries):
    panel = timeseries.Panel().title(title).description(says).datasource(SOURCE).unit(unit)
    panel = panel.height(8).span(8).fill_opacity(8).min(0)
    for expression, legend in queries:
        panel = panel.with_target(query(expression, legend))
    return panel


NONE_IS_GOOD = steps((None, "green"), (1, "red"))
TICKETS = steps((None, "green"), (1, "orange"))


def board():
    it = (
        dashboard.Dashboard("renewd")
        .uid("renewd")
        .description("Access tokens that renewd keeps fresh: who holds one, and what keeps others from it.")
        .tags(["renewd"])
        .refresh("1m")
        .time("now-24h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Instance")
            .datasource(SOURCE)
            .query('label_values(renewd_build_info{job="renewd"}, instance)')
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
        )
    )
    numbers = itertools.count(1)
    for title, panels in ROWS:
        it = it.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            it = it.with_panel(panel.id(next(numbers)))
    return it.build()


ROWS = [
    (
        "Does everybody hold a token?",
        [
            number(
                "Without a live token",
                "Consumers that are to hold one and do not.",
                'sum(renewd_consumers{+holds="none"})',
                NONE_IS_GOOD,
            ),
            number(
                "With one",
                "Consumers that hold a live token, by what was delivered last.",
                'sum(renewd_consumers{+holds="live"})',
                steps((None, "blue")),
            ),
            number(
                "Next end",
                "Until the next token ends that a consumer holds; renewd renews at half of a life.",
                "min(renewd_consumer_next_end_timestamp_seconds{} > 0) - time()",
                steps((None, "red"), (1800, "orange"), (3600, "green")),
                "s",
            ),
            number(
                "Late",
                "Identities with less than a quarter of a life left.",
                "sum(renewd_identities_late{})",
                TICKETS,
            ),
            number(
                "Need a person",
                "As `renewd status` tells first of all.",
                "sum(renewd_needs{})",
                TICKETS,
            ),
            number(
                "Store",
                "1 while it can be read and written.",
                "min(renewd_store_up{})",
                steps((None, "red"), (1, "green")),
            ),
        ],
    ),
    (
        "What needs a person",
        [
            lines(
                "Needs by kind",
                "The kinds of `renewd status`; docs/monitoring says which alert tells of each.",
                "short",
                ("sum by (kind) (renewd_needs{}) > 0", "{{kind}}"),
            ),
            lines(
                "Consumers by what they hold",
                "A live token, none, or not known.",
                "short",
                ("sum by (holds) (renewd_consumers{})", "{{holds}}"),
            ),
            lines(
                "Left of the life that ends next",
                "As a share. Renewals come at a half, a person is woken at a tenth.",
                "percentunit",
                (
                    "((renewd_consumer_next_end_timestamp_seconds{} > 0) - time()) / renewd_consumer_next_end_life_seconds{}",
                    "{{by}}",
                ),
            ),
        ],
    ),
    (
        "Renewals",
        [
            lines(
                "Calls to ACS",
                "By how they ended.",
                "cps",
                (
                    "sum by (operation, result) (rate(renewd_acs_calls_total{}[$__rate_interval])) > 0",
                    "{{operation}} {{result}}",
                ),
            ),
            lines(
                "How long ACS takes",
                "99 and 50 of a hundred calls.",
                "s",
                (
                    "histogram_quantile(0.99, sum by (le) (rate(renewd_acs_call_duration_seconds_bucket{}[$__rate_interval])))",
                    "99 %",
                ),
                (
                    "histogram_quantile(0.5, sum by (le) (rate(renewd_acs_call_duration_seconds_bucket{}[$__rate_interval])))",
                    "50 %",
                ),
            ),
            lines(
                "Renewals after their time",
                "99 of a hundred, and the oldest that is overdue now.",
                "s",
                (
                    "histogram_quantile(0.99, sum by (le) (rate(renewd_renewal_delay_seconds_bucket{}[$__rate_interval])))",
                    "99 %",
                ),
                ("time() - (renewd_overdue_since_timestamp_seconds{} > 0)", "overdue {{resource}}"),
            ),
            lines(
                "Use of the limits",
                "Sent within the window, of what renewd allows itself.",
                "percentunit",
                ("renewd_pace_window_used{} / renewd_pace_window_limit{}", "{{resource}} {{operation}}"),
            ),
            lines(
                "Bearers of Entra ID",
                "Until the one in hand ends, of resources without access keys; it is renewed at half of its life.",
                "s",
                ("(renewd_bearer_expiry_timestamp_seconds{} > 0) - time()", "{{resource}}"),
            ),
            lines(
                "Identities by state",
                "The token of dead ones ended.",
                "short",
                ("sum by (state) (renewd_identities{})", "{{state}}"),
            ),
            lines(
                "Campaigns",
                "Items of campaigns that are not over.",
                "short",
                ("sum by (state) (renewd_campaign_items{})", "{{state}}"),
            ),
        ],
    ),
    (
        "Deliveries",
        [
            lines(
                "Pending",
                "What the sinks are owed.",
                "short",
                ("sum by (sink) (renewd_deliveries_pending{})", "{{sink}}"),
            ),
            lines(
                "Oldest pending",
                "How far the consumers of a sink are behind.",
                "s",
                ("time() - (renewd_delivery_oldest_timestamp_seconds{} > 0)", "{{sink}}"),
            ),
            lines(
                "Failed attempts",
                "",
                "cps",
                ('sum by (sink) (rate(renewd_deliveries_total{+result="failed"}[$__rate_interval]))', "{{sink}}"),
            ),
        ],
    ),
    (
        "The machine",
        [
            lines(
                "Commits",
                "99 of a hundred take no longer.",
                "s",
                (
                    "histogram_quantile(0.99, sum by (le) (rate(renewd_store_commit_seconds_bucket{}[$__rate_interval])))",
                    "99 %",
                ),
            ),
            lines(
                "Disk",
                "What the store takes, and what is free beside it.",
                "bytes",
                ("renewd_store_bytes{}", "store {{instance}}"),
                ("renewd_state_dir_free_bytes{}", "free {{instance}}"),
            ),
            lines(
                "Memory",
                "Of the process.",
                "bytes",
                ("process_resident_memory_bytes{}", "memory {{instance}}"),
            ),
            lines(
                "Processor",
                "Seconds in a second.",
                "percentunit",
                ("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{instance}}"),
            ),
            lines(
                "Clocks",
                "How far that of a resource is ahead, and by how much the wall clock stepped unconfirmed.",
                "s",
                ("renewd_clock_skew_seconds{}", "{{resource}}"),
                ("renewd_clock_held_step_seconds{}", "held step {{instance}}"),
            ),
            lines(
                "Loops",
                "Since each last decided; beyond 90 s it stands still.",
                "s",
                ("max by (part) (time() - renewd_loop_decided_timestamp_seconds{})", "{{part}}"),
            ),
        ],
    ),
]

if __name__ == "__main__":
    json.dump(board(), sys.stdout, cls=JSONEncoder, indent=1, sort_keys=True)
    print()
