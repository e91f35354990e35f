
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_metrics.h"
#include "ngx_http_llm_zone.h"


/* the rows of a metric stand together */

ngx_http_llm_metric_t  ngx_http_llm_metrics[] = {

    { "llm_build_info", "gauge", NULL, NULL,
      { "version", "nginx" }, NULL,
      "Versions of the module and of nginx.", 0, NULL },

    { "llm_zone_size_bytes", "gauge", NULL, "zone.size",
      { NULL }, NULL,
      "Size of the shared memory.", 0, NULL },

    { "llm_zone_used_bytes", "gauge", NULL, "zone.used",
      { NULL }, NULL,
      "What of it is in use.", 0, NULL },

    { "llm_state_age_seconds", "gauge", NULL, "zone.state.age",
      { NULL }, NULL,
      "How long ago the state file last held all there was.", 0, NULL },

    { "llm_state_failures_total", "counter", NULL, "zone.state.failures",
      { NULL }, NULL,
      "Times that the state file could not be written.", 0, NULL },

    { "llm_requests_total", "counter", "routes", "outcomes",
      { "route", "outcome" }, NULL,
      "Requests that are over, by how they ended.", 0, NULL },

    { "llm_rejections_total", "counter", "routes", "rejections",
      { "route", "reason" }, NULL,
      "Requests that the gate refused, by the code of the error.", 0, NULL },

    { "llm_failovers_total", "counter", "routes", "failovers_from",
      { "route", "from", "to" }, NULL,
      "Attempts at another provider than the one before.", 0, NULL },

    { "llm_attempts_total", "counter", "providers", "successful_calls",
      { "provider", "outcome" }, "success",
      "Calls to a provider that have their verdict.", 0, NULL },

    { "llm_attempts_total", "counter", "providers", "failed_calls",
      { "provider", "outcome" }, "failure", NULL, 0, NULL },

    { "llm_attempts_total", "counter", "providers", "throttled_calls",
      { "provider", "outcome" }, "throttled", NULL, 0, NULL },

    { "llm_attempts_total", "counter", "providers", "neutral_calls",
      { "provider", "outcome" }, "neutral", NULL, 0, NULL },

    { "llm_alerts_total", "counter", "alerts", "delivered",
      { "receiver", "result" }, "delivered",
      "Events that receivers of alerts were told, or never will be.",
      0, NULL },

    { "llm_alerts_total", "counter", "alerts", "dropped",
      { "receiver", "result" }, "dropped", NULL, 0, NULL },

    { "llm_alert_failures_total", "counter", "alerts", "failures",
      { "receiver" }, NULL,
      "Messages that a receiver of alerts did not take.", 0, NULL },

    { "llm_in_flight", "gauge", "providers", "in_flight",
      { "provider" }, NULL,
      "Calls to a provider that have no verdict yet.", 0, NULL },

    { "llm_stream_failures_total", "counter", "providers", "stream_failures",
      { "provider", "reason" }, NULL,
      "Answers that broke off, stalled or had an error event after their "
      "commit.", 0, NULL },

    { "llm_circuit_state", "gauge", "providers", "state",
      { "provider", "state" }, "closed",
      "1 for the state that the circuit is in.", 0, NULL },

    { "llm_circuit_state", "gauge", "providers", "state",
      { "provider", "state" }, "open", NULL, 0, NULL },

    { "llm_circuit_state", "gauge", "providers", "state",
      { "provider", "state" }, "half_open", NULL, 0, NULL },

    { "llm_circuit_transitions_total", "counter", "providers", "moves",
      { "provider", "from", "to" }, NULL,
      "Changes of a circuit's state.", 0, NULL },

    { "llm_circuit_open_remaining_seconds", "gauge", "providers",
      "time_until_retry",
      { "provider" }, NULL,
      "Time until an open circuit lets a request probe.", 0, NULL },

    { "llm_addresses", "gauge", "providers", "addresses",
      { "provider" }, NULL,
      "Addresses of a provider's host; 0 where it is not found.", 0, NULL },

    { "llm_addresses_passed_over", "gauge", "providers", "passed_over",
      { "provider" }, NULL,
      "Of these, those where connecting failed lately.", 0, NULL },

    { "llm_probe_total", "counter", "providers", "probe.total",
      { "provider", "result" }, NULL,
      "Active probes, by what came of them.", 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "success",
      "1 for what came of the last active probe.", 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "failure", NULL, 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "credential", NULL, 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "throttle", NULL, 0, NULL },

    { "llm_probe_duration_seconds", "gauge", "providers", "probe.latency",
      { "provider" }, NULL,
      "How long the last active probe took.", 0, NULL },

    { "llm_probe_success_ratio", "gauge", "providers", "probe.success_rate",
      { "provider", "window" }, NULL,
      "Share of good active probes over the last hour and day.", 0, NULL },

    { "llm_attempt_duration_seconds", "histogram", "providers", NULL,
      { "provider" }, NULL,
      "Time from sending a call to the end of its good answer.",
      offsetof(ngx_http_llm_times_t, duration), llm_histogram_durations },

    { "llm_first_token_seconds", "histogram", "providers", NULL,
      { "provider" }, NULL,
      "Time from sending a call to the first token of its stream.",
      offsetof(ngx_http_llm_times_t, first_token),
      llm_histogram_first_tokens },

    { "llm_tokens_total", "counter", "providers", "tokens",
      { "provider", "type" }, NULL,
      "Tokens that the answers took.", 0, NULL },

    { "llm_cost_usd_total", "counter", "providers", "cost",
      { "provider" }, NULL,
      "What the answers cost, in USD.", 0, NULL },

    { "llm_observed_calls_total", "counter", "observed", "successful_calls",
      { "upstream", "server", "outcome" }, "success",
      "Calls to an observed server, by what a circuit makes of them.", 0,
      NULL },

    { "llm_observed_calls_total", "counter", "observed", "failed_calls",
      { "upstream", "server", "outcome" }, "failure", NULL, 0, NULL },

    { "llm_observed_calls_total", "counter", "observed", "throttled_calls",
      { "upstream", "server", "outcome" }, "throttled", NULL, 0, NULL },

    { "llm_observed_calls_total", "counter", "observed", "neutral_calls",
      { "upstream", "server", "outcome" }, "neutral", NULL, 0, NULL },

    { "llm_observed_rejections_total", "counter", "observed", "would_reject",
      { "upstream", "server" }, NULL,
      "Calls to an observed server that its circuit would have refused.", 0,
      NULL },

    { "llm_observed_good_rejections_total", "counter", "observed",
      "would_reject_good",
      { "upstream", "server" }, NULL,
      "Of these, calls that were good.", 0, NULL },

    { "llm_observed_circuit_state", "gauge", "observed", "state",
      { "upstream", "server", "state" }, "closed",
      "1 for the state that the circuit would be in.", 0, NULL },

    { "llm_observed_circuit_state", "gauge", "observed", "state",
      { "upstream", "server", "state" }, "open", NULL, 0, NULL },

    { "llm_observed_circuit_state", "gauge", "observed", "state",
      { "upstream", "server", "state" }, "half_open", NULL, 0, NULL },

    { "llm_observed_circuit_transitions_total", "counter", "observed", "moves",
      { "upstream", "server", "from", "to" }, NULL,
      "Changes that the circuit's state would have made.", 0, NULL }
};


const ngx_uint_t  ngx_http_llm_nmetrics =
    sizeof(ngx_http_llm_metrics) / sizeof(ngx_http_llm_metric_t);
