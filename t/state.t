# What nginx knows of its providers outlives nginx: "llm_zone ... state=FILE".

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA qw(sha256_hex);
use LLM::Gateway;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my @KEPT = qw(
    state admin reason failure_count success_count open_level transitions
    total_calls successful_calls failed_calls throttled_calls neutral_calls
    rejected_calls late_calls stream_errors last_success last_failure
    last_error state_changes latency first_token tokens usage cost moves
);

my $FAILS = 'circuit failure_threshold=2 open=300s;';

# How nginx may end, and what is left of its state.

my %END = (
    quit => sub { $_[0]->nginx->quit },
    stop => sub { $_[0]->nginx->stop },
    'kill -9' => sub {
        my $gw = shift;
        wait_saved($gw);
        kill_all($gw);
    },
);

for my $end (sort keys %END) {
    subtest "an outage outlives $end" => sub {
        my $gw = gateway([ a => $FAILS, b => '' ], workers => 2);
        $gw->provider('a')->behave(503);
        $gw->ask for 1 .. 4;
        my $left = $gw->status('a')->{time_until_retry};
        my $start = time;
        my %before = map { $_ => kept($gw, $_) } qw(a b);

        $END{$end}->($gw);
        sleep 1.5;
        $gw->start;
        my $now = $gw->status('a')->{time_until_retry};
        my $passed = time - $start;
        is_deeply kept($gw, $_), $before{$_}, $_ for qw(a b);
        cmp_ok $now, '<=', $left - 1.5, 'downtime counts';
        cmp_ok $now, '>=', $left - $passed - 1, 'but not more';

        $gw->provider('a')->forget;
        is $gw->ask->header('x-llm-provider'), 'b';
        is $gw->provider('a')->stats->{requests}, 0, 'and it is left alone';
    };
}

done_testing;

sub gateway {
    my ($providers, %option) = @_;

    my $zone = delete $option{zone} // '1m';
    my $file = delete $option{file} // 'state/llm';
    return LLM::Gateway->new(providers => $providers,
        zone => "$zone state=$file", %option);
}

sub state_file { $_[0]->nginx->prefix . '/state/llm' }

sub kept {
    my ($gw, $name) = @_;

    my $now = $gw->status($name // 'a');
    return { map { $_ => $now->{$_} } @KEPT };
}

sub slurp {
    my $path = shift;

    open my $file, '<:raw', $path or return '';
    local $/;
    return <$file> // '';
}

# Until the file says what the status says.

sub wait_saved {
    my $gw = shift;

    my @names = map { $_->{name} } @{ $gw->status->{providers} };
    return ok $gw->wait_for(sub {
        my $file = slurp(state_file($gw));
        my %total = $file =~ /^\[provider (\S+)\].*?^total_calls ?(\d*)$/gms;
        return !grep {
            ($total{$_} || 0) != $gw->status($_)->{total_calls}
        } @names;
    }, 30), 'the file says it';
}

sub kill_all {
    my $gw = shift;

    my $nginx = $gw->nginx;
    my $master = $nginx->master;
    my @children = $nginx->children;
    $nginx->expect_killed($_) for $master, @children;
    kill KILL => $master, @children;
    return ok $gw->wait_for(sub { !grep { kill 0 => $_ } @children }),
        'all are killed';
}
