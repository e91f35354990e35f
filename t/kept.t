# A connection that was kept, and that the provider has closed in the meantime,
# is nobody's failure: the call goes over another one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use Test::More;

use constant CHAT => '/v1/chat/completions';

my $NEVER = 'circuit failure_threshold=200;';

my $gw = LLM::Gateway->new(
    providers => [ a => $NEVER, b => $NEVER ],
    routes    => { pair => 'a b', alone => 'a' },
    locations => { map { my $route = $_;
        map { ("/$route-$_" =>
            "llm_pass $route prefix=/$route-$_; proxy_buffering $_;") }
        qw(on off) } qw(pair alone) },
);

my ($a, $b) = map { $gw->provider($_) } qw(a b);

for my $how (qw(close reset)) {
    subtest "a kept connection that was closed ($how) is nobody's failure"
        => sub {
        for my $path ('/pair-off', '/alone-off', '/alone-on') {
            $a->drop('idle')->forget;
            $a->behave({ stale => $how }, 'ok');
            is $gw->ask($path . CHAT)->status, 200;
            my $r = $gw->ask($path . CHAT);
            is $r->status, 200, "$path answers";
            is $r->header('x-llm-provider'), 'a', 'from the same provider';
            is $r->header('x-llm-attempts'), 1;
            is $a->stats->{stale},       1;
            is $a->stats->{connections}, 2;
            is $gw->moved, 'a successful=2';
            is $gw->logged->{llm_outcome}, 'ok';
        }
    };
}

subtest 'nor is one that is reset while it is taken' => sub {
    $a->drop('idle');
    $a->behave('ok')->forget;
    is $gw->ask('/alone-off' . CHAT)->status, 200;
    $gw->moved;

    # the worker sees the request first, and the reset when it writes
    my $http = $gw->call('/alone-off' . CHAT, undef, close => 0);
    $http->finish;
    my ($worker) = $gw->nginx->workers;
    kill STOP => $worker;
    ok $gw->wait_for(sub { state_of($worker) eq 'T' });
    $http->start(POST => '/alone-off' . CHAT, json => { model => 'm' });
    $a->drop('idle');
    kill CONT => $worker;
    my $r = $http->finish;
    is $r->status, 200;
    is $gw->moved, 'a successful=2';
    $gw->{calls}++;
    is $gw->logged->{llm_attempts}, 1;
};

sub state_of {
    my $pid = shift;

    open my $stat, '<', "/proc/$pid/stat" or return '';
    return (<$stat> =~ /\) (\S)/)[0];
}

subtest 'what is answered behind one that was closed is passed on' => sub {
    $a->drop('idle');
    $a->behave_at('/v1/models/m', { stale => 'close' },
        { status => 429, body => 'slower' });
    $gw->ask('/alone-off/v1/models/m', undef, method => 'GET');
    my $r = $gw->ask('/alone-off/v1/models/m', undef, method => 'GET');
    is $r->status, 429;
    is $r->body,   'slower';
    is $gw->moved, 'a neutral=2';
};

subtest 'many that were closed are forgotten one by one' => sub {
    $a->drop('idle');
    $a->behave({ delay => 0.1, stale => 'close', times => 8 }, 'ok')->forget;
    my @callers = map { $gw->call('/alone-off' . CHAT) } 1 .. 8;
    $_->finish for @callers;
    is $gw->ask('/alone-off' . CHAT)->status, 200;
    is $gw->moved, 'a successful=9';
    is $gw->logged->{llm_attempts}, 1;
};

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_" for qw(a b);

done_testing;
