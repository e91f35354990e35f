# Prometheus reads the gateway, and examples/prometheus/ can be copied: what
# its alerts and its dashboard ask for is there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Cwd qw(abs_path);
use File::Temp ();
use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use LLM::Port;
use LLM::Provider;
use POSIX ();
use Test::More;

use constant { CHAT => '/v1/chat/completions', PATIENCE => 60 };

my $examples = abs_path("$FindBin::Bin/../examples/prometheus");

for my $program (qw(prometheus promtool)) {
    plan skip_all => "no $program" if !grep { -x "$_/$program" }
        split /:/, $ENV{PATH};
}


sub slurp {
    my ($name) = @_;

    open my $fh, '<', $name or die "$name: $!\n";
    local $/;
    return scalar <$fh>;
}

sub promtool {
    my ($what, $file) = @_;

    my $said = `cd '$examples' && promtool $what '$file' 2>&1`;
    is $?, 0, "promtool $what $file" or diag($said);
    return $said;
}


subtest 'promtool finds nothing wrong' => sub {
    promtool('check config', 'prometheus.yml');
    promtool('check rules', 'alerts.yml');
    promtool('test rules', 'alerts_test.yml');

    my %tested = map { $_ => 1 }
        slurp("$examples/alerts_test.yml") =~ /alertname: (\w+)/g;
    my @alerts = slurp("$examples/alerts.yml") =~ /- alert: (\w+)/g;
    is_deeply [ sort keys %tested ], [ sort @alerts ],
        'each alert has its test';
};


my $hook = LLM::Provider->new(name => 'hook');
$hook->behave({ status => 204, body => '' });

my $gw = LLM::Gateway->new(
    workers   => 2,
    zone      => '1m state=state',
    http      => 'llm_alert ' . $hook->url . '/ interval=0;',
    providers => [
        openai   => 'circuit failure_threshold=5 open=10m; price 2 8;'
            . 'probe interval=500ms;',
        deepseek => 'price 0.28 0.42; timeout idle=200ms;',
    ],
    server    => 'location = /metrics { llm_status format=prometheus;'
        . ' access_log off; }',
);

my $dir = File::Temp->newdir('llm-prometheus-XXXXXX', TMPDIR => 1);
my $port = LLM::Port->new;
my $api  = 'http://' . $port->authority;
my $pid;

# the example's own configuration, in a hurry
sub start {
    my ($target) = $gw->url =~ m{//(.*)};
    my $conf = slurp("$examples/prometheus.yml");

    ok $conf =~ s/'127\.0\.0\.1:8080'/'$target'/
        && $conf =~ s/_interval: 15s/_interval: 1s/g
        && $conf =~ s{- alerts\.yml}{- $examples/alerts.yml},
        'the example is as expected';
    open my $fh, '>', "$dir/prometheus.yml" or die "prometheus.yml: $!\n";
    print {$fh} $conf;
    close $fh;

    $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDOUT, '>', "$dir/log";
        open STDERR, '>&', \*STDOUT;
        exec 'prometheus', "--config.file=$dir/prometheus.yml",
            "--storage.tsdb.path=$dir/data",
            '--web.listen-address=' . $port->authority,
            '--log.level=warn' or POSIX::_exit(127);
    }
    return;
}

sub stop {
    my $ended = shift;

    return if !$pid;
    kill 'TERM', $pid;
    waitpid $pid, 0;
    is $?, 0, 'Prometheus ends' if $ended;
    undef $pid;
    return;
}

END { local $?; stop() }

sub ask_api {
    my ($path, %args) = @_;

    my $query = join '&', map {
        "$_=" . $args{$_} =~ s/([^\w.-])/sprintf '%%%02X', ord $1/ger
    } keys %args;
    my $r = eval { LLM::HTTP->new($api)->get("/api/v1/$path?$query",
        close => 1) } or return;
    my $answer = eval { $r->json } or return;
    return $answer->{status} eq 'success' ? $answer->{data}
        : diag("$args{query}: $answer->{error}") && undef;
}

sub samples {
    my ($query) = @_;

    my $data = ask_api('query', query => $query) or return;
    return @{ $data->{result} };
}

sub value { (map { $_->{value}[1] } samples(@_))[0] }

sub scraped {
    my ($query, $is, $name) = @_;

    my $told;
    ok $gw->wait_for(sub {
        $told = value($query);
        return defined $told && $told == $is;
    }, PATIENCE), $name // $query or diag("$told, not $is: $query");
    return;
}


start();
ok $gw->wait_for(sub { (value('up{job="nginx-llm"}') // 0) == 1 }, PATIENCE),
    'Prometheus reads the gateway'
    or do { diag(slurp("$dir/log")); done_testing; exit };

subtest 'what it reads is what happened' => sub {
    my ($one, $two) = map { $gw->provider($_) } qw(openai deepseek);
    my $stream = { model => 'm', stream => JSON::PP::true };

    is $gw->ask->status, 200 for 1 .. 20;
    $gw->ask(undef, $stream) for 1 .. 10;
    $one->behave(503);
    is $gw->ask->status, 200 for 1 .. 7;
    $two->behave({ tokens => 4, stall => '2 tokens' });
    $gw->ask(undef, $stream);
    $two->behave('ok');
    $gw->ask(undef, undef, body => '{');
    $gw->moved;

    scraped('llm_requests_total{route="llm",outcome="ok"}', 30);
    scraped('llm_requests_total{route="llm",outcome="failover"}', 7);
    scraped('sum(llm_requests_total)', 39, 'every request');
    scraped('llm_rejections_total{reason="invalid_request_error"}', 1);
    scraped('llm_failovers_total{from="openai",to="deepseek"}', 5);
    scraped('llm_failovers_total{from="deepseek",to="openai"}', 0);
    scraped('llm_attempts_total{provider="openai",outcome="success"}', 30);
    scraped('llm_attempts_total{provider="openai",outcome="failure"}', 5);
    scraped('llm_stream_failures_total{provider="deepseek",reason="stalled"}',
        1);
    scraped('llm_circuit_state{provider="openai",state="open"}', 1);
    scraped('sum(llm_circuit_state)', 2, 'each circuit has one state');
    scraped('llm_circuit_transitions_total{provider="openai",to="open"}', 1);
    scraped('llm_first_token_seconds_count{provider="openai"}', 10);
    scraped('llm_attempt_duration_seconds_count{provider="openai"}', 30);
    scraped('sum(llm_in_flight)', 0);
    scraped('llm_addresses{provider="openai"}', 1);
    scraped('llm_alerts_total{result="delivered"}', 1, 'it was told');
    scraped('llm_state_failures_total', 0);
    ok $gw->wait_for(sub {
        (value('llm_probe_total{result="failure"}') // 0) > 0
            && (value('llm_probe_total{result="success"}') // 0) > 0;
    }, PATIENCE), 'probes before, and while it is out';
    scraped('llm_zone_size_bytes', 1048576);
    scraped('llm_probe_result{provider="openai",result="failure"}', 1);
    scraped('sum(llm_probe_result)', 1, 'a probe has one result');
    cmp_ok value('llm_state_age_seconds'), '<', PATIENCE, 'the file is written';

    my %status = map { $_->{name} => $_ } @{ $gw->status->{providers} };
    for my $name (qw(openai deepseek)) {
        scraped(qq(llm_tokens_total{provider="$name",type="output"}),
            $status{$name}{tokens}{output});
        scraped(qq(llm_cost_usd_total{provider="$name"}),
            $status{$name}{cost});
    }
};


# What a query of the dashboard or of an alert asks for has to be on the
# page: each metric, with each label that is named for it.
sub is_there {
    my ($name, $query) = @_;

    my @wrong;
    for my $label ($query =~ /\b(?:by|ignoring|on)\s*\(([^)]*)\)/g) {
        push @wrong, map { my $label = $_;
            (grep { samples("$_" . qq({$label!=""})) }
                $query =~ /\b(llm_\w+)/g) ? () : "nothing has $label"
        } split /,\s*/, $label;
    }

    while ($query =~ /\b(llm_\w+|up)(?:\{(.*?)\})?/g) {
        my ($metric, $inner) = ($1, $2 // '');
        push @wrong, "no $metric" if !samples($metric);
        while ($inner =~ /(\w+)\s*[=!]~?=?\s*"(.*?)"/g) {
            my ($label, $values) = ($1, $2);
            for my $value ($values =~ /^[\w|-]+$/ ? split(/\|/, $values)
                : '.+')
            {
                push @wrong, qq(no $metric with $label "$value")
                    if !samples(qq($metric\{$label=~"$value"}));
            }
        }
    }

    ok !@wrong, "$name: the page has what it asks for"
        or diag(join "\n", $query, @wrong);
    ok defined ask_api('query', query => $query), "$name is a query";
    return;
}


subtest 'the alerts ask for what is there' => sub {
    my $rules = ask_api('rules');
    my @rules = map { @{ $_->{rules} } } @{ $rules->{groups} };

    is scalar @rules, () = slurp("$examples/alerts.yml") =~ /- alert:/g;
    is_deeply [ grep { $_->{lastError} } @rules ], [], 'none has an error';
    is_there($_->{name}, $_->{query}) for @rules;
};


subtest 'so does the dashboard' => sub {
    my $board = JSON::PP->new->decode(slurp("$examples/grafana.json"));
    my $n;

    for my $panel (@{ $board->{panels} }) {
        for my $target (@{ $panel->{targets} }) {
            my $query = $target->{expr};
            $query =~ s/\$__rate_interval/1m/g;
            $query =~ s/"\$(route|provider)"/".*"/g;
            unlike $query, qr/\$/, "$panel->{title}: all variables are known";
            is_there($panel->{title}, $query);

            my %has = map { $_ => 1 } map { keys %{ $_->{metric} } }
                samples($query);
            $n = 0;
            for my $label ($target->{legendFormat} =~ /\{\{(\w+)\}\}/g) {
                $n++ if $has{$label} || $query =~ /> 0$/;
            }
            is $n, () = $target->{legendFormat} =~ /\{\{/g,
                "$panel->{title}: its legend has its labels";
        }
    }

    for my $variable (@{ $board->{templating}{list} }) {
        next if $variable->{type} ne 'query';
        my ($metric, $label) = $variable->{definition}
            =~ /^label_values\((\w+), (\w+)\)$/;
        ok samples(qq($metric\{$label!=""})), "$variable->{name} has values";
    }

    my %id;
    ok !grep({ $id{ $_->{id} }++ } @{ $board->{panels} }), 'ids are unique';
};

stop(1);
$gw->done;

done_testing;
