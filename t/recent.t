# The last hour: what the gateway keeps of each minute is what happened in it,
# once, whoever dies meanwhile.  This takes as long as a minute does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use List::Util qw(sum0);
use LLM::Gateway;
use Test::More;
use Time::HiRes qw(sleep time);

use constant {
    MINUTE  => 60,
    SOON    => 30,      # on a busy machine
    WORKERS => 3,
};

my $gw = LLM::Gateway->new(
    workers   => WORKERS,
    providers => [
        a => 'circuit failure_threshold=2 open=1h;',
        b => '',
        c => '',
    ],
    routes => { llm => 'a b', other => 'c' },
);


sub recent {
    my $json = $gw->nginx->client->get('/status?recent')->json;

    return ($json->{recent}, {
        map { ($_->{name} => $_->{recent}) } @{ $json->{providers} },
            @{ $json->{routes} } });
}


# the minute that is so many minutes ago
sub minute {
    my ($recent, $ago) = @_;

    return { map { ($_ => $recent->{$_}[ 60 - $ago ]) } keys %$recent };
}


sub counts {
    my ($recent) = @_;

    return { map { ($_ => $recent->{$_}) }
        grep { $_ ne 'duration' } keys %$recent };
}


my ($start, $at) = recent();

is_deeply counts(minute($at->{a}, 0)),
    { calls => 0, failed => 0, throttled => 0, rejected => 0 },
    'a minute has begun';
is scalar(grep { defined } @{ $at->{a}{calls} }), 1,
    'before it there is none';

$gw->provider('a')->behave(503);
$gw->ask for 1 .. 5;

my %A = (calls => 2, failed => 2, throttled => 0, rejected => 3);
my %B = (calls => 5, failed => 0, throttled => 0, rejected => 0);
my %L = (requests => 5, failover => 5, rejected => 0, broken => 0);

$gw->wait_for(sub { (recent())[1]{llm}{requests}[60] == 5 }, SOON);

(undef, $at) = recent();
is_deeply counts(minute($at->{a}, 0)), \%A, 'it grows: who failed';
is_deeply counts(minute($at->{b}, 0)), \%B, 'who answered';
is_deeply minute($at->{llm}, 0), \%L, 'what callers got';
ok minute($at->{b}, 0)->{duration} > 0, 'how long that took';
is minute($at->{a}, 0)->{duration}, undef, 'where nothing was answered';

# a worker that is killed is nobody's loss

my ($pid) = $gw->nginx->workers;
$gw->nginx->expect_killed($pid);
kill KILL => $pid;

my $over = MINUTE - (recent())[0]{age};
sleep $over;
ok $gw->wait_for(sub { defined +(recent())[1]{a}{calls}[59] }, SOON),
    'the minute is over';

($start, $at) = recent();
is_deeply counts(minute($at->{a}, 1)), \%A, 'it is kept: who failed';
is_deeply counts(minute($at->{b}, 1)), \%B, 'who answered';
is_deeply minute($at->{llm}, 1), \%L, 'what callers got';
is_deeply counts(minute($at->{a}, 0)),
    { calls => 0, failed => 0, throttled => 0, rejected => 0 },
    'the next one begins with nothing';
is sum0(map { $_ // 0 } map { @{ $_->{rejected} } } values %$at), 3,
    'nothing is there twice';

# reload, and another size of the zone

for my $size (qw(1m 2m)) {
    $gw->configure(zone => $size);
    $gw->nginx->reload;
    $gw->ask;

    ok $gw->wait_for(sub {
        sum0(map { $_ // 0 } @{ (recent())[1]{llm}{requests} })
            == ($size eq '1m' ? 6 : 7)
    }, SOON), "$size: what comes is added";
    is sum0(map { $_ // 0 } @{ (recent())[1]{a}{failed} }), 2,
        '... to what was there';
}

$gw->done;

done_testing;
