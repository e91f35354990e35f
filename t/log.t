# llm_log: what the error log is told, and how loudly.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use Test::More;

use constant CHAT => '/v1/chat/completions';

my %LINE = (
    circuits => qr/circuit of provider "a" closed -> open/,
    attempts => qr/provider "a": status 503 \(failure\).* next is "b"/,
    broken   => qr/provider "b": broken off in the answer/,
    order    => qr/operator "-" at 127\.0\.0\.1: "reset" to provider "a"/,
    reset    => qr{circuit of provider "a" open -> closed: reset},
);


sub gateway {
    my (%conf) = @_;

    return LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=1;', b => '' ],
        %conf,
        locations => { '/' => '', %{ $conf{locations} // {} } },
        server    => 'location /api/ { llm_api; } ' . ($conf{server} // ''),
    );
}

# everything that has a line
sub everything {
    my ($gw, $path) = @_;

    $gw->provider('a')->behave(503);
    $gw->provider('b')->behave({ tokens => 4, close => '2 tokens' });
    $gw->ask($path . CHAT, { model => 'm', stream => JSON::PP::true });
    $gw->moved;
    LLM::HTTP->new($gw->url)->request(POST => '/api/providers/a',
        json => { action => 'reset' }, close => 1);
    ok $gw->nginx->wait_log($LINE{order}), 'an order';
    return;
}

sub level {
    my ($gw, $what) = @_;

    my @level = map { /\[(\w+)\]/ } grep { /$LINE{$what}/ }
        split /\n/, $gw->nginx->error_log;
    return join ' ', @level;
}

sub levels_are {
    my ($gw, %should) = @_;

    is level($gw, $_), $should{$_}, "$_: $should{$_}" for sort keys %should;
    return;
}


subtest 'without a word all of it is a warning' => sub {
    my $gw = gateway();
    everything($gw, '');
    levels_are($gw, map { $_ => 'warn' } keys %LINE);
    $gw->done;
};


subtest 'each has the level that it is given' => sub {
    my $gw = gateway(
        http => 'llm_log circuits=error attempts=info operator=notice;');
    everything($gw, '');
    levels_are($gw, circuits => 'error', attempts => 'info',
        broken => 'info', order => 'notice', reset => 'error');
    $gw->done;
};


subtest 'a location has its own, and inherits the others' => sub {
    my $gw = gateway(
        http      => 'llm_log circuits=error attempts=info;',
        server    => 'llm_log operator=notice;',
        locations => {
            '/own/' => 'llm_pass llm prefix=/own/; llm_log attempts=error;',
        },
    );
    everything($gw, '/own');
    levels_are($gw, circuits => 'error', attempts => 'error',
        broken => 'error', order => 'notice', reset => 'error');
    $gw->done;
};


subtest 'an if has those of its location' => sub {
    my $gw = gateway(locations => {
        '/if/' => 'llm_pass llm prefix=/if/; llm_log circuits=notice;'
            . ' if ($request_method = POST) { set $x 1; }',
    });
    everything($gw, '/if');
    levels_are($gw, circuits => 'notice', attempts => 'warn');
    $gw->done;
};


subtest 'of probes only news has it, and a refused key is an error' => sub {
    my $gw = gateway(http => 'llm_log probes=notice;', providers =>
        [ a => 'probe interval=200ms timeout=2s;' ]);
    my $told = sub {
        my ($level, $what) = @_;
        return scalar(() = $gw->nginx->error_log
            =~ /\[\Q$level\E] .* llm: probe of provider "a": $what/g);
    };
    my $probes = sub {
        my $n = 0;
        $n += $_ for values %{ $gw->status('a')->{probe}{total} };
        return $n;
    };

    ok $gw->wait_for(sub { $told->(info => 'success') }, 20),
        'that all is well is none';
    $gw->provider('a')->behave_at('/models', 503);
    ok $gw->wait_for(sub { $told->(notice => 'failure: status 503') }, 20),
        'a failure';
    my $now = $probes->();
    ok $gw->wait_for(sub { $probes->() >= $now + 3 }, 20);
    is $told->(notice => 'failure'), 1, 'once';
    cmp_ok $told->(info => 'failure'), '>=', 1, 'the others are not loud';
    $gw->provider('a')->behave_at('/models', 200);
    ok $gw->wait_for(sub { $told->(notice => 'success') }, 20), 'its end';
    $gw->provider('a')->behave_at('/models', 401);
    ok $gw->wait_for(sub { $told->(error => 'credential') }, 20), 'the key';
    is $told->(warn => ''), 0, 'nothing is a warning';
    $gw->done;
};


subtest 'mistakes are told' => sub {
    my $gw = gateway(start => 0);

    for (
        [ '', 'invalid number of arguments in "llm_log" directive' ],
        [ 'circuits', 'invalid level "" of "circuits" in "llm_log": expected'
            . ' "info", "notice", "warn" or "error"' ],
        [ 'attempts=loud', 'invalid level "loud" of "attempts" in "llm_log"' ],
        [ 'attempts=off', 'invalid level "off" of "attempts" in "llm_log"' ],
        [ 'circuits=warn circuits=info', 'duplicate "circuits" in "llm_log"' ],
        [ 'requests=warn', 'invalid parameter "requests=warn" in "llm_log":'
            . ' expected "circuits=", "attempts=", "operator=" or' ],
        [ 'circuits=warn; llm_log attempts=warn',
            '"llm_log" directive is duplicate' ],
    ) {
        my ($words, $says) = @$_;
        $gw->configure(http => "llm_log $words;");
        my ($well, $told) = $gw->nginx->test_conf;
        ok !$well, "llm_log $words";
        like $told, qr/\[emerg\].*\Q$says\E/, $says;
    }
};

done_testing;
