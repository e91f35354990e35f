# A caller that leaves takes the call along, wherever it is: nobody generates
# what nobody reads, and it is nobody's failure.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::Stream qw(keep_alives);
use Test::More;

use constant CHAT => '/v1/chat/completions';

# longer than anybody waits here
my $TIMES = 'timeout connect=1m header=1m answer=1m first_token=1m idle=1m;';
my $NEVER = 'circuit failure_threshold=200;';

my %ROUTE = (pair => '', held => 'llm_commit complete;');

my $gw = LLM::Gateway->new(
    providers => [ a => "$NEVER $TIMES", b => $NEVER ],
    routes    => {},
    http      => 'proxy_buffer_size 4k; proxy_buffers 8 4k;'
        . 'proxy_busy_buffers_size 8k;'
        . join(' ', map {
            "upstream $_ { llm_use a; llm_use b; keepalive 16; $ROUTE{$_} }"
        } sort keys %ROUTE),
    locations => { map { my $route = $_;
        map { ("/$route-$_" =>
            "llm_pass $route prefix=/$route-$_; proxy_buffering $_;") }
        qw(on off) } keys %ROUTE },
);

my ($a, $b) = map { $gw->provider($_) } qw(a b);

my $ENDLESS = { tokens => 2000, pace => 0.02 };

my @LEAVING = (
    { name => 'before there is an answer', step => 'hang',
      moved => 'neutral=1' },
    { name => 'within the header', step => { stall => '20 bytes' },
      moved => 'neutral=1' },
    { name => 'while a body is sent', wait => qr/x{1000}/,
      step => { body => 'x' x 8e6, pieces => 65536, gap => 0.3 },
      moved => 'successful=1' },
    { name => 'before the header of a stream', stream => 1, step => 'hang',
      moved => 'neutral=1' },
    { name => 'before the first token', stream => 1, moved => 'neutral=1',
      step => { pings => 3, first => 40 } },
    { name => 'while keep-alives come', stream => 1,
      step => { events => keep_alives(800) }, moved => 'neutral=1' },
    { name => 'while a stream comes', stream => 1, wait => qr/token2/,
      step => $ENDLESS, moved => 'successful=1' },
    { name => 'in a stream that is silent', stream => 1, wait => qr/token2/,
      step => { tokens => 5, stall => '2 tokens' }, moved => 'successful=1' },
    { name => 'within a window', stream => 1, in => 'held', sent => 1000,
      step => $ENDLESS, moved => 'neutral=1' },
    { name => 'behind the finish', stream => 1, moved => 'successful=1',
      wait => qr/"finish_reason":"stop"/,
      step => { done => 0, framing => 'close', stall => 'end' } },
);

for my $case (@LEAVING) {
    for my $how (qw(close reset)) {
        subtest "a caller that goes ($how) $case->{name} takes the call along"
            => sub { leaving($case, $how, $_) for qw(off on) };
    }
}

sub leaving {
    my ($case, $how, $buffering) = @_;

    my $in = $case->{in} // 'pair';
    $a->behave($case->{step});
    $_->forget for $a, $b;
    my $http = $gw->call("/$in-$buffering" . CHAT,
        { model => 'm', $case->{stream} ? (stream => \1) : () });
    ok $a->wait_requests(1), "buffering $buffering";
    ok $http->read_until($case->{wait}) if $case->{wait};
    ok $a->wait_for(sub { +($_[0]->requests)[0]{sent} > $case->{sent} })
        if $case->{sent};

    $http->$how;
    ok $a->wait_outcome('gone'), 'no more is generated';
    is $gw->logged->{llm_outcome}, 'aborted';
    is $gw->moved, "a $case->{moved}", 'and it is nobody\'s failure';
    is $b->stats->{requests}, 0, 'nor a call for the next';
}

subtest 'a caller that goes before its body is there costs nobody' => sub {
    $a->drop('idle')->behave('ok')->forget;
    $gw->call('/pair-off' . CHAT, { model => 'm' x 100 }, only => 150)->close;
    is $gw->logged->{status}, 400;
    is $gw->logged->{llm_outcome}, 'aborted', 'as the status counts it';
    is $gw->moved, '';
    is $a->stats->{connections}, 0;
};

subtest 'a caller that leaves a probe gives its permit back' => sub {
    my $gw = LLM::Gateway->new(providers =>
        [ a => 'circuit failure_threshold=1 open=50ms success_threshold=1;' ]);
    my $a = $gw->provider('a')->behave(500, 'hang', 'ok');
    $gw->ask;
    $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });

    my $http = $gw->call;
    ok $gw->wait_for(sub { $gw->status('a')->{half_open_calls} == 1 });
    is $gw->ask->status, 503;
    $http->close;
    ok $gw->wait_for(sub { $gw->status('a')->{half_open_calls} == 0 });
    is $gw->status('a')->{state}, 'half_open';
    is $gw->ask->status, 200;
    is $gw->status('a')->{state}, 'closed';
    is $gw->moved, 'a successful=1 failed=1 neutral=1 rejected=1';
    $gw->done;
};

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_" for qw(a b);

done_testing;
