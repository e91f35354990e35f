# A first token has its time, a request has its deadline, and a pause ends with
# it, whatever the provider, the caller or the worker does meanwhile.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::Stream qw(error_events keep_alives pings);
use Test::More;
use Time::HiRes qw(sleep time);

use constant {
    CHAT => '/v1/chat/completions',
    SOON => 8,    # s: long before a provider would go on
};

my $STREAM = { model => 'm', stream => \1 };
my $NEVER  = 'circuit failure_threshold=200;';
my $TIMES  = 'timeout header=1m answer=1m idle=1m';

my %ROUTE = (
    hasty          => 'llm_use hasty; llm_use b;',
    hasty_alone    => 'llm_use hasty;',
    alone_deadline => 'llm_use a; llm_deadline 1s;',
    pair_deadline  => 'llm_use a; llm_use b; llm_deadline 1s;',
);

my $gw = LLM::Gateway->new(
    providers => [
        a     => "$NEVER $TIMES first_token=1m;",
        hasty => "$NEVER $TIMES first_token=300ms;",
        b     => $NEVER,
    ],
    routes    => {},
    http      => join(' ',
        map { "upstream $_ { $ROUTE{$_} keepalive 16; }" } sort keys %ROUTE),
    locations => { map {
        my $route = $_;
        map { ("/$route-$_/" => "llm_pass $route prefix=/$route-$_;"
            . " proxy_buffering $_;") } qw(off on);
    } keys %ROUTE },
);

my ($first, $hasty, $next) = map { $gw->provider($_) } qw(a hasty b);

# what would go on for longer than anybody waits

my @LATE = ({ first => 30 }, { delay => 30 }, { events => keep_alives(600) });

subtest 'a first token has its time, whatever else comes' => sub {
    for my $step ('hang', @LATE, { events => pings(600) },
        { stall => 'header' }, { stall => '30 body bytes' })
    {
        for my $buffering (qw(off on)) {
            $hasty->behave($step);
            my $start = time;
            my $r = $gw->ask("/hasty-$buffering" . CHAT, $STREAM);
            my $took = time - $start;
            is $r->header('x-llm-provider'), 'b';
            cmp_ok $took, '>', 0.29;
            cmp_ok $took, '<', SOON;
            is $gw->moved, 'hasty failed=1, b successful=1';
            is $gw->status('hasty')->{last_error}, 'no first token in time';
        }
    }
    is $gw->ask('/hasty_alone-off' . CHAT, $STREAM)->status, 504, 'alone';
    is $gw->moved, 'hasty failed=1';

    $hasty->behave({ delay => 0.5 });
    is $gw->ask('/hasty_alone-off' . CHAT)->status, 200,
        'a call that does not stream has no first token';
    $hasty->behave({ tokens => 3, pace => 0.4 });
    ok $gw->ask('/hasty_alone-off' . CHAT, $STREAM)->complete,
        'nor has it to be quick behind that';
    is $gw->moved, 'hasty successful=2';
};

subtest 'the deadline of a request bounds everything' => sub {
    for my $buffering (qw(off on)) {
        for my $step ('hang', @LATE) {
            $first->behave($step);
            my $start = time;
            my $r = $gw->ask("/alone_deadline-$buffering" . CHAT, $STREAM);
            my $took = time - $start;
            cmp_ok $took, '>', 0.99;
            cmp_ok $took, '<', SOON;
            is $r->status, 504;
            is $gw->moved, 'a failed=1';
        }
        $first->behave('hang');
        $next->behave('ok')->forget;
        my $r = $gw->ask("/pair_deadline-$buffering" . CHAT);
        is $r->status, 504, 'nobody is asked when it is over';
        is $next->stats->{requests}, 0;
        is $gw->moved, 'a failed=1';

        $first->behave({ tokens => 600, pace => 0.05 });
        my $start = time;
        $r = $gw->ask("/pair_deadline-$buffering" . CHAT, $STREAM);
        cmp_ok time - $start, '<', SOON, 'behind the first token';
        ok !$r->complete;
        is scalar(error_events($r)), 1;
        like $r->body, qr/deadline/;
        is $gw->moved, 'a successful=1', 'which is not the provider\'s fault';
        is $gw->logged->{llm_outcome}, 'truncated';
        $first->behave('ok');
        ok $gw->ask("/pair_deadline-$buffering" . CHAT, $STREAM)->complete;
        is $gw->moved, 'a successful=1';
    }
};

subtest 'a pause ends, whatever nginx has for connecting' => sub {
    my $gw = paused('llm_retry rounds=2 base=500ms jitter=0;');
    $gw->provider('a')->behave(500, 'ok');
    my $begin = time;
    my $r = $gw->ask;
    is $r->status, 200;
    cmp_ok time - $begin, '>', 0.45;
    unlike $gw->nginx->error_log, qr/upstream timed out/;
    $gw->done;
};

subtest 'and it ends with the deadline, once' => sub {
    my $gw = paused('llm_retry rounds=2 base=3s jitter=0;'
        . ' llm_deadline 4s;');
    $gw->provider('a')->behave(500);
    my $http = $gw->call;
    ok $gw->wait_for(sub { $gw->nginx->error_log =~ /next after a pause/ });

    # a worker that is late finds both of them over
    my ($worker) = $gw->nginx->workers;
    kill STOP => $worker;
    sleep 4.1;
    kill CONT => $worker;
    is $http->finish->status, 504;
    is $gw->moved, 'a failed=1';
    $gw->done;
};

subtest 'the time of a caller is none of a provider' => sub {
    my $gw = paused('llm_deadline 2s;');
    $gw->provider('a')->behave({ delay => 0.5 });
    my $r = $gw->ask(CHAT, undef,
        chunked => ['{"model":', \1.8, '"m"}']);
    is $r->status, 200, 'a slow upload';
    is $gw->moved, 'a successful=1';

    $gw->provider('a')->behave({ events =>
        [ (token() x 70_000), "data: [DONE]\n\n" ] });
    my $http = $gw->call(CHAT, { model => 'm', stream => \1 });
    sleep 2.5;
    ok !$http->finish->complete, 'a slow download';
    is $gw->moved, 'a successful=1', 'breaks off, and counts as nothing';
    $gw->done;
};

sub paused {
    my $directives = shift;

    return LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=9;' ],
        locations => { '/' => 'proxy_connect_timeout 200ms;' },
        routes    => {},
        http      => "upstream llm { llm_use a; $directives }",
    );
}

sub token {
    return 'data: {"choices":[{"index":0,"delta":{"content":"'
        . 'x' x 60 . "\"}}]}\n\n";
}

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_"
    for qw(a hasty b);

done_testing;
