# Probes are sent and alerts told however nginx's processes stand: one that has
# no master, one worker, one that went into the background.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use LLM::Provider;
use Test::More;

use constant PATIENCE => 20;

my %WAY = (
    'a single process'             => { master => 0 },
    'one worker'                   => {},
    'one worker in the background' => { daemon => 1 },
);

for my $way (sort keys %WAY) {
    subtest "$way asks, and tells" => sub {
        my ($gw, $hook) = gateway(%{ $WAY{$way} });
        my $p = $gw->provider('a');

        outage_is_told($gw, $hook, 1);
        if ($gw->nginx->has_master) {
            $gw->nginx->reload;
            outage_is_told($gw, $hook, 2);
        }

        # nobody waits for what is under way
        $hook->behave('hang')->forget;
        $p->behave(503);
        ok $hook->wait_requests(1), 'an alert hangs';
        $p->behave('hang')->forget;
        ok $p->wait_requests(1), 'and so does a probe';
        $gw->done;
    };
}

# nginx itself has no connections then

subtest 'a reload without a master is no fault of a provider' => sub {
    my ($gw, $hook) = gateway(master => 0);
    my $nginx = $gw->nginx;
    $nginx->expect_log(qr/worker_connections are not enough/);

    outage_is_told($gw, $hook, 1);
    kill HUP => $nginx->master;
    ok $nginx->wait_log(qr/probe of provider "a" is not sent/, PATIENCE),
        'probes are not sent';
    unlike $nginx->error_log =~ s/.*reconfiguring//sr, qr/failure/,
        'which is no failure';
    $gw->done;
};

done_testing;

sub gateway {
    my %option = @_;

    my $hook = LLM::Provider->new(name => 'hook');
    $hook->behave({ status => 204, body => '' });

    my $gw = LLM::Gateway->new(
        providers => [
            a => 'circuit failure_threshold=1 open=1s;'
                . 'probe interval=200ms timeout=2s passive=on;',
        ],
        http => 'llm_alert ' . $hook->url . '/ interval=0 on=open,close;',
        %option,
    );
    return ($gw, $hook);
}

# by probes alone
sub outage_is_told {
    my ($gw, $hook, $n) = @_;

    for my $step ([ 503, 'open' ], [ 'ok', 'close' ]) {
        my ($behaviour, $event) = @$step;

        $gw->provider('a')->behave($behaviour);
        ok $gw->wait_for(sub {
            $n == grep { $_ eq $event } told($hook);
        }, PATIENCE), "$event is told";
    }

    # the worker has heard of it, too
    ok $gw->wait_for(sub { $gw->status->{alerts}[0]{delivered} == 2 * $n },
        PATIENCE), 'both are delivered';
}

sub told {
    my $hook = shift;

    return map { $_->{event} }
        map { @{ JSON::PP::decode_json($_->{body})->{events} } }
        grep { $_->{outcome} eq 'answered' } $hook->requests;
}
