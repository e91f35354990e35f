# Whose fault an error is, by what its body and its header say: the next
# provider is asked or not, the circuit moves or not, and what is the
# caller's own arrives as it came.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use List::Util qw(sum0);
use POSIX qw(strftime);
use Test::More;

my $CHAT     = '/v1/chat/completions';
my $MESSAGES = '/v1/messages';
my $JSON     = JSON::PP->new->canonical;

# The same provider under many names, each with a circuit of its own, for cases
# that leave it open or throttled.

my $own  = LLM::Provider->new(name => 'own');
my $mine = LLM::Provider->new(name => 'mine');

my @fresh = map { "own$_" } 1 .. 46;
my @names = ('own', 'mine', @fresh);

my $gw = LLM::Gateway->new(
    zone      => '4m',
    providers => [
        own  => 'circuit failure_threshold=200;',
        mine => 'api_key client;',
        (map { $_ => '' } @fresh),
        b    => 'model m m-of-b;',
    ],
    sources   => { mine => $mine, map { $_ => $own } 'own', @fresh },
    routes    => { alone => 'own', map { $_ => "$_ b" } @names },
    locations => { map { ("/$_/" => "llm_pass $_ prefix=/$_;") }
        alone => @names },
);

my $next = $gw->provider('b');

sub fresh { shift @fresh // die "more names, please\n" }

sub openai {
    my ($type, $code, $message) = @_;

    return { error => { message => $message // 'made up', type => $type,
        param => undef, code => $code } };
}

sub anthropic {
    my ($type, $message) = @_;

    return { type => 'error',
        error => { type => $type, message => $message // 'made up' } };
}

sub gemini {
    my ($code, $status, @details) = @_;

    return { error => { code => $code, message => 'made up',
        status => $status, details => \@details } };
}

my $QUOTA = openai('insufficient_quota', 'insufficient_quota',
    'You exceeded your current quota, please check your plan.');
my $LONG = openai('invalid_request_error', 'context_length_exceeded',
    'This model\'s maximum context length is 128 tokens.');
my $FILTER = openai('invalid_request_error', 'content_filter',
    'The response was filtered.');

# what an error is with the provider's own key, and with the caller's:
# "next": the next provider is asked; "opens": nobody is for long

my @ERRORS = (
    { name => 'no money',       status => 429, body => $QUOTA,
      own => 'opens', callers => 'passed' },
    { name => 'no money left at Anthropic', status => 400, uri => $MESSAGES,
      body => anthropic('invalid_request_error', 'Your credit balance is '
          . 'too low to access the Anthropic API.'),
      own => 'opens', callers => 'passed' },
    { name => 'a wrong key',    status => 401,
      body => openai('invalid_request_error', 'invalid_api_key'),
      own => 'opens', callers => 'passed' },
    { name => 'a wrong key at Anthropic', status => 401, uri => $MESSAGES,
      body => anthropic('authentication_error'),
      own => 'opens', callers => 'passed' },
    { name => 'a wrong key at Google', status => 400,
      body => gemini(400, 'INVALID_ARGUMENT', {
          '@type' => 'type.googleapis.com/google.rpc.ErrorInfo',
          reason => 'API_KEY_INVALID' }),
      own => 'opens', callers => 'passed' },
    { name => 'a bill not paid', status => 402, body => openai('x', 'y'),
      own => 'opens', callers => 'passed' },
    { name => 'a busy provider', status => 429,
      body => openai('requests', 'rate_limit_exceeded'),
      own => 'throttled', callers => 'next' },
    { name => 'a busy Anthropic', status => 429, uri => $MESSAGES,
      body => anthropic('rate_limit_error'),
      own => 'throttled', callers => 'next' },
    { name => 'too much for a model', status => 400, body => $LONG,
      own => 'next', callers => 'next' },
    { name => 'too much for Anthropic', status => 413, uri => $MESSAGES,
      body => anthropic('request_too_large'),
      own => 'next', callers => 'next' },
    { name => 'a model that is not there', status => 404,
      body => openai('invalid_request_error', 'model_not_found'),
      own => 'next', callers => 'next' },
    { name => 'a content filter', status => 400, body => $FILTER,
      own => 'passed', callers => 'passed' },
    { name => 'a moderation', status => 403,
      body => openai('invalid_request_error', 'moderation',
          'Your input was flagged.'),
      own => 'passed', callers => 'passed' },
    { name => 'a mistake of the caller', status => 400,
      body => openai('invalid_request_error', undef, 'messages is missing'),
      own => 'passed', callers => 'passed' },
    { name => 'a mistake that quotes other words', status => 400,
      body => openai('invalid_request_error', undef,
          'no such thing: "insufficient_quota context_length_exceeded"'),
      own => 'passed', callers => 'passed' },
    { name => 'something that is no JSON', status => 400,
      body => '<html>insufficient_quota</html>',
      own => 'passed', callers => 'passed' },
    { name => 'nothing', status => 400, body => '',
      own => 'passed', callers => 'passed' },
    { name => 'an overloaded Anthropic', status => 529, uri => $MESSAGES,
      body => anthropic('overloaded_error'),
      own => 'failed', callers => 'failed' },
);

my %MOVED = (
    opens     => 'NAME failed=1, b successful=1',
    failed    => 'NAME failed=1, b successful=1',
    throttled => 'NAME throttled=1, b successful=1',
    next      => 'NAME neutral=1, b successful=1',
    passed    => 'NAME neutral=1',
);

for my $case (@ERRORS) {
    subtest "$case->{name}: $case->{own}, $case->{callers}" => sub {
        verdict($case, $case->{own}, $own);
        verdict($case, $case->{callers}, $mine);
    };
}

# each way in which the same body may come

sub verdict {
    my ($case, $expected, $p) = @_;

    my $bytes = ref $case->{body} ? $JSON->encode($case->{body})
                                  : $case->{body};
    for my $how ({}, { framing => 'chunked' },
        length $bytes ? { framing => 'chunked', pieces => 20 } : ())
    {
        $p->behave({ status => $case->{status}, body => $bytes,
            content_type => 'application/json', %$how });
        $next->forget;
        my $name = $expected =~ /^(?:opens|throttled)$/ ? fresh() : $p->name;
        my $r = $gw->ask("/$name" . ($case->{uri} // $CHAT),
            { model => 'm', stream => \1 },
            headers => { authorization => 'Bearer of-the-caller' });
        is $gw->moved, $MOVED{$expected} =~ s/NAME/$name/r;
        if ($expected eq 'passed') {
            is $r->status, $case->{status};
            is $r->body,   $bytes, 'unchanged';
            is $r->header('content-type'), 'application/json';
            is $r->header('x-llm-attempts'), 1;
            is $next->stats->{requests}, 0;
        } else {
            is $r->header('x-llm-provider'), 'b';
        }
        my $status = $gw->status($name);
        is $status->{state}, $expected eq 'opens' ? 'open' : 'closed';
        ok $expected eq 'throttled' ? $status->{throttled_for} > 0
            : $status->{throttled_for} == 0, 'throttled or not';
    }
}

subtest 'what nobody can do is told by the one who said so' => sub {
    $own->behave({ status => 400, body => $LONG });
    my $r = $gw->ask("/alone$CHAT");
    is $r->status, 400;
    is $r->json->{error}{code}, 'context_length_exceeded';
    is $gw->moved, 'own neutral=1';
};

subtest 'the body of a 429 tells how long' => sub {
    my $info = { '@type' => 'type.googleapis.com/google.rpc.RetryInfo' };
    for my $delay ('37s', '2.5s') {
        my $name = fresh();
        $own->behave({ status => 429, body => gemini(429,
            'RESOURCE_EXHAUSTED', { %$info, retryDelay => $delay }) });
        is $gw->ask("/$name$CHAT")->header('x-llm-provider'), 'b';
        my $left = $gw->status($name)->{throttled_for};
        my ($seconds) = $delay =~ /([\d.]+)/;
        cmp_ok $left, '<=', $seconds, $delay;
        cmp_ok $left, '>',  $seconds - 1;
        is $gw->moved, "$name throttled=1, b successful=1";
    }
};

subtest 'the header of a 429 tells how long' => sub {
    my $date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime time + 20);
    for my $case (
        [ { 'retry-after' => 17 }, 17 ], [ { 'retry-after' => '2.5' }, 2.5 ],
        [ { 'retry-after' => $date }, 20 ],
        [ { 'retry-after-ms' => 3500 }, 3.5 ],
        [ { 'x-ms-retry-after-ms' => 4500 }, 4.5 ],
        [ { 'retry-after' => 100, 'retry-after-ms' => 3500 }, 3.5 ],
        [ { 'retry-after' => 'soon' }, 5 ], [ {}, 5 ],
        [ { 'retry-after' => 100_000 }, 300 ],
    ) {
        my ($headers, $seconds) = @$case;
        my $name = fresh();
        $own->behave({ status => 429, headers => $headers });
        is $gw->ask("/$name$CHAT")->header('x-llm-provider'), 'b';
        my $left = $gw->status($name)->{throttled_for};
        cmp_ok $left, '<=', $seconds + 0.01,
            join ' ', map { "$_: $headers->{$_}" } sort keys %$headers;
        cmp_ok $left, '>', $seconds - 2;
        is $gw->moved, "$name throttled=1, b successful=1";
    }
};

subtest 'a limit that is reached steers away before there is a 429' => sub {
    my $reset = strftime('%Y-%m-%dT%H:%M:%SZ', gmtime time + 30);
    for my $headers (
        { 'x-ratelimit-remaining-requests' => 0,
          'x-ratelimit-reset-requests' => '30s' },
        { 'x-ratelimit-remaining-tokens' => 0,
          'x-ratelimit-reset-tokens' => '0m30s' },
        { 'anthropic-ratelimit-requests-remaining' => 0,
          'anthropic-ratelimit-requests-reset' => $reset },
        { 'anthropic-ratelimit-output-tokens-remaining' => 0,
          'anthropic-ratelimit-output-tokens-reset' => $reset },
    ) {
        for my $ask ({ model => 'm' }, { model => 'm', stream => \1 }) {
            my $name = fresh();
            $own->behave({ headers => $headers }, 'ok');
            my $r = $gw->ask("/$name$CHAT", $ask);
            is $r->header('x-llm-provider'), $name, (sort keys %$headers)[0];
            cmp_ok $gw->status($name)->{throttled_for}, '>', 20;
            is $gw->ask("/$name$CHAT", $ask)->header('x-llm-provider'), 'b';
            is $gw->moved, "$name successful=1 rejected=1, b successful=1";
        }
    }
    for my $headers (
        { 'x-ratelimit-remaining-requests' => 1,
          'x-ratelimit-reset-requests' => '30s' },
        { 'x-ratelimit-remaining-requests' => 0 },
        { 'x-ratelimit-remaining-requests' => 0,
          'x-ratelimit-reset-requests' => '0s' },
        { 'x-ratelimit-remaining-requests' => 0,
          'x-ratelimit-reset-tokens' => '30s' },
        { 'x-ratelimit-remaining-requests' => 0,
          'x-ratelimit-reset-requests' => 'soon' },
    ) {
        my $name = 'own';
        $own->behave({ headers => $headers }, 'ok');
        $gw->ask("/$name$CHAT");
        is $gw->status($name)->{throttled_for}, 0;
        is $gw->moved, "$name successful=1";
    }
};

subtest 'an error is understood, however its body comes' => sub {
    my $long  = openai('invalid_request_error', 'context_length_exceeded',
        'x' x 100_000);
    my $body  = $JSON->encode($LONG);
    my $size  = length $body;
    my %other = (
        'a long message behind' => { body => $long },
        'a long message in chunks' => { body => $long, framing => 'chunked' },
        'a long message in pieces' =>
            { body => $long, framing => 'chunked', pieces => 5000 },
        'a late body' => { raw => [ "HTTP/1.1 400 Bad\r\ncontent-length: "
            . "$size\r\n\r\n", \0.1, substr($body, 0, 30), \0.1,
            substr $body, 30 ] },
    );
    for my $how (sort keys %other) {
        my $name = 'own';
        $own->behave({ status => 400, %{ $other{$how} } });
        my $r = $gw->ask("/$name$CHAT");
        is $r->header('x-llm-provider'), 'b', $how;
        is $gw->moved, "$name neutral=1, b successful=1";
    }
    my $big = openai('invalid_request_error', undef, 'x' x 100_000);
    for my $framing (qw(length chunked close)) {
        my $name = 'own';
        $own->behave({ status => 400, body => $big, framing => $framing });
        my $r = $gw->ask("/$name$CHAT");
        is $r->status, 400, "100 kB, framing $framing";
        ok $r->complete;
        ok $r->body eq $own->client->post($CHAT, {})->body;
        is $gw->moved, "$name neutral=1";
        is $gw->status($name)->{state}, 'closed';
    }
};

subtest 'an error that is cut short is a failure, or looks like one' => sub {
    for my $fault (qw(close reset)) {
        for my $framing (qw(length chunked)) {
            my $name = 'own';
            $own->behave({ status => 400, body => $FILTER,
                framing => $framing, $fault => '40 body bytes' });
            my $r = $gw->ask("/$name$CHAT");
            is $r->header('x-llm-provider'), 'b', "$fault, $framing";
            is $gw->moved, "$name failed=1, b successful=1";
        }
        my $name = 'own';
        $own->behave({ status => 400, body => 'x' x 100_000,
            $fault => '50000 body bytes' });
        my $r = $gw->ask("/$name$CHAT");
        ok !$r->complete || $r->header('x-llm-provider') eq 'b';
        like $gw->moved, qr/^$name (?:failed=1, b successful=1|neutral=1.*)$/;
    }
};

subtest 'what is no completion is nobody\'s fault' => sub {
    for my $status (400, 401, 402, 403, 404, 408, 413, 429, 498) {
        my $name = 'own';
        $own->behave({ status => $status, body => $QUOTA });
        my $r = $gw->ask("/$name/v1/files");
        is $r->status, $status;
        is $r->body, $own->client->post('/v1/files', {})->body;
        is $gw->moved, "$name neutral=1";
        is $gw->status($name)->{state}, 'closed';
    }
};

is sum0(map { $_->{in_flight} } @{ $gw->status->{providers} }), 0,
    'nothing is left';

done_testing;
