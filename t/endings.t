# Whichever way a call ends, it ends for the caller as it should, its provider
# has exactly one verdict, and nothing is left over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::TLS;
use Test::More;
use Time::HiRes qw(sleep time);

use constant CHAT => '/v1/chat/completions';

my $TIMES = 'timeout connect=300ms header=300ms answer=400ms idle=300ms;';
my $NEVER = 'circuit failure_threshold=200;';

my $gw = LLM::Gateway->new(
    providers => [ a => "$NEVER $TIMES", b => "$NEVER model m m-of-b;" ],
    routes    => { pair => 'a b', alone => 'a' },
    http      => 'sendfile on; client_body_buffer_size 16k;'
        . 'client_max_body_size 8m;'
        . 'proxy_buffer_size 4k; proxy_buffers 8 4k;'
        . 'proxy_busy_buffers_size 8k;'
        . 'proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;',
    locations => {
        map({ my $route = $_;
            map { ("/$route-$_" =>
                "llm_pass $route prefix=/$route-$_; proxy_buffering $_;") }
            qw(on off) } qw(pair alone)),
        map({ ("/impatient-$_" => "llm_pass alone prefix=/impatient-$_;"
            . " proxy_buffering $_; proxy_max_temp_file_size 0;"
            . ' send_timeout 200ms;') } qw(on off)),
        '/cache' => 'llm_pass alone prefix=/cache; proxy_cache cache;'
            . ' proxy_cache_methods GET POST; proxy_cache_key $request_body;'
            . ' proxy_buffering on; proxy_cache_valid 200 1h;',
        '/elsewhere' => 'llm_pass alone prefix=/elsewhere;'
            . ' error_page 502 504 = @elsewhere;',
        '@elsewhere' => 'llm_pass pair prefix=/elsewhere;',
        '/matched' => 'llm_pass alone prefix=/matched; proxy_cache cache;'
            . ' proxy_cache_key $uri; error_page 412 = @matched;',
        '@matched' => 'llm_pass pair prefix=/matched;',
        '= /around'  => 'auth_request /inner/v1/models;'
            . ' llm_pass pair prefix=/around;',
        '/inner/' => 'llm_pass alone prefix=/inner/;'
            . ' proxy_pass_request_body off;',
        '= /file' => 'internal; return 200 "the wrong answer";',
    },
);

my ($a, $b) = map { $gw->provider($_) } qw(a b);
my $STREAM = { model => 'm', stream => \1 };

# Before its answer has begun.  "last": what the caller gets, and how the log
# calls it, where nobody else is left.

my @BEFORE = (
    { name => 'a provider that is not there', do => sub { $a->refuse },
      last => 502, fault => 'connection failed' },
    { name => 'a provider that does not take the call',
      do => sub { $a->deafen },
      last => 504, fault => 'timed out while connecting' },
    { name => 'a connection that is reset', step => 'reset',
      last => 502, fault => 'closed before the answer' },
    { name => 'an empty reply', step => 'close',
      last => 502, fault => 'closed before the answer' },
    { name => 'an end within the header', step => { close => '20 bytes' },
      last => 502, fault => 'closed before the answer' },
    { name => 'a reset within the header', step => { reset => '20 bytes' },
      last => 502, fault => 'closed before the answer' },
    { name => 'a provider that is silent', step => 'hang',
      last => 504, fault => 'timed out before the answer' },
    { name => 'silence within the header', step => { stall => '20 bytes' },
      last => 504, fault => 'timed out before the answer' },
    { name => 'a header byte by byte for too long', step => { dribble => 0.02 },
      last => 504, fault => 'timed out before the answer' },
    { name => 'something that is no HTTP',
      step => { raw => "220 mail.test ESMTP ready\r\n" },
      last => 502, fault => 'invalid answer' },
    { name => 'an answer without a header, as of HTTP/0.9',
      step => { raw => '<html>hello</html>' },
      last => 502, fault => 'invalid answer' },
    { name => 'another version than HTTP/1',
      step => { raw => "HTTP/2 200\r\n\r\n" },
      last => 502, fault => 'invalid answer' },
    { name => 'a status that is none',
      step => { raw => "HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n" },
      last => 502, fault => 'invalid answer' },
    { name => 'an interim answer, which nobody has asked for',
      step => { interim => [103] },
      last => 502, fault => 'invalid answer' },
    { name => 'switching protocols, which nobody has asked for',
      step => { raw => "HTTP/1.1 101 Yes\r\nupgrade: x\r\n\r\n" },
      last => 502, fault => 'invalid answer' },
    { name => 'a header that is too big',
      step => { headers => { 'x-big' => 'x' x 8000 } },
      last => 502, fault => 'invalid answer' },
    { name => 'a header line that is none',
      step => { header_lines => ["bad\x01line: x"] },
      last => 502, fault => 'invalid answer' },
    { name => 'a failure that is told', step => 503,
      last => 502, fault => 'status 503' },
    { name => 'a failure that nginx does not know', step => 529,
      last => 502, fault => 'status 529' },
);

for my $case (@BEFORE) {
    subtest "$case->{name} is not what the caller gets" => sub {
        before($case, 'off', $STREAM);
        before($case, 'on', { model => 'm' });
    };
}

sub before {
    my ($case, $buffering, $ask) = @_;

    $a->behave($case->{step}) if $case->{step};
    $case->{do}->()           if $case->{do};

    my $r = $gw->ask("/pair-$buffering" . CHAT, $ask);
    is $r->status, 200, "buffering $buffering";
    ok $r->complete;
    is $r->version, '1.1';
    is $r->header('x-llm-provider'), 'b';
    is $r->header('x-llm-attempts'), 2;
    is $gw->moved, 'a failed=1, b successful=1';
    is $gw->logged->{llm_outcome}, 'failover';
    is $gw->status('a')->{last_error}, $case->{fault};

    $r = $gw->ask("/alone-$buffering" . CHAT, $ask);
    is $r->version, '1.1';
    is $r->status,  $case->{last}, 'and alone';
    like $r->body, qr/"code":"all_providers_failed"/;
    like $r->body, qr/\ba \(\Q$case->{fault}\E\)/;
    is $gw->moved, 'a failed=1';
    is $gw->logged->{llm_outcome}, 'error';
    $a->accept_again if $case->{do};
}

# Behind the header: it is the caller's, and nobody else is asked.

my $LONG = { tokens => 3, pace => 0.02 };
my $BODY = 'x' x 3000;

my @AFTER = (
    { name => 'an end in the middle of a body',
      step => { body => $BODY, close => '1000 body bytes' } },
    { name => 'a reset in the middle of a body',
      step => { body => $BODY, reset => '1000 body bytes' } },
    { name => 'an end behind the header', step => { close => 'header' } },
    { name => 'an end in the middle of a stream',
      step => { %$LONG, close => '2 tokens' }, stream => 1 },
    { name => 'a reset in the middle of a stream',
      step => { %$LONG, reset => '2 tokens' }, stream => 1 },
    { name => 'chunks that are none',
      step => { raw => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
          . "\r\n5\r\nhello\r\nwhat?\r\n" }, headless => 1 },
    { name => 'silence in the middle of a body', fault => 'stalled',
      step => { body => $BODY, stall => '1000 body bytes' } },
    { name => 'silence behind the header', fault => 'stalled',
      step => { stall => 'header' } },
    { name => 'silence in the middle of a stream', fault => 'stalled',
      step => { %$LONG, stall => '2 tokens' }, stream => 1 },
);

for my $case (@AFTER) {
    subtest "$case->{name} does not look complete" => sub {
        for my $buffering (qw(off on)) {
            $a->behave($case->{step});
            my $r = $gw->ask("/pair-$buffering" . CHAT,
                { model => 'm', $case->{stream} ? (stream => \1) : () });
            is $r->status, $case->{headless} ? undef : 200,
                "buffering $buffering";
            ok !$r->complete;
            is $r->header('x-llm-provider'), 'a' if !$case->{headless};

            my $line = $gw->logged;
            is $line->{llm_outcome},  'truncated';
            is $line->{llm_attempts}, 1;
            is $gw->moved, 'a successful=1 stream_errors=1';
            is $gw->status('a')->{last_error}, $case->{fault} // 'broken off';
            is $gw->status('a')->{failure_count}, 1;

            $a->behave('ok');
            $gw->ask("/alone-$buffering" . CHAT);
            $gw->moved;
        }
    };
}

# Whatever the provider does well.

my @WELL = (
    { name => 'a body of known length',     step => { body => $BODY } },
    { name => 'a body in chunks',           step => { body => $BODY,
      framing => 'chunked' } },
    { name => 'a body that ends with the connection',
      step => { body => $BODY, framing => 'close' } },
    { name => 'an empty body',              step => { body => '' } },
    { name => 'no body',                    step => 204 },
    { name => 'a redirection',              step => { status => 302,
      headers => { location => 'http://example.test/' }, body => $BODY } },
    { name => 'a body that fills buffers',  step => { body => 'x' x 1e6 } },
    { name => 'a big header',
      step => { headers => { 'x-big' => 'x' x 3000 }, body => $BODY } },
    { name => 'bytes that trickle', step => { raw => [
          "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
          map { ('x', \0.08) } 1 .. 10 ] } },
    { name => 'tokens that trickle', stream => 1,
      step => { tokens => 10, pace => 0.08 } },
);

for my $case (@WELL) {
    subtest "$case->{name} comes whole" => sub {
        for my $buffering (qw(off on)) {
            $a->behave($case->{step});
            my $r = $gw->ask("/pair-$buffering" . CHAT,
                { model => 'm', $case->{stream} ? (stream => \1) : () });
            my $expected = ref $case->{step} && $case->{step}{status} || 200;
            is $r->status, ref $case->{step} ? $expected : $case->{step},
                "buffering $buffering";
            ok $r->complete;
            is $r->body, $case->{step}{body}, 'its bytes'
                if ref $case->{step} && defined $case->{step}{body};
            is $gw->logged->{llm_outcome}, 'ok';
            is $gw->moved, 'a successful=1';
        }
    };
}

# The caller leaves.

my @LEAVING = (
    { name => 'before there is an answer', step => 'hang',
      moved => 'a neutral=1' },
    { name => 'within the header', step => { stall => '20 bytes' },
      moved => 'a neutral=1' },
    { name => 'while a stream comes', stream => 1, wait => qr/token2/,
      step => { tokens => 500, pace => 0.02 }, moved => 'a successful=1' },
    { name => 'while a body is sent', wait => qr/x{1000}/,
      step => { body => 'x' x 8e6, pieces => 65536, gap => 0.02 },
      moved => 'a successful=1' },
);

for my $case (@LEAVING) {
    for my $how (qw(close reset)) {
        subtest "a caller that goes ($how) $case->{name} takes the call along"
            => sub { leaving($case, $how, $_) for qw(off on) };
    }
}

sub leaving {
    my ($case, $how, $buffering) = @_;

    $a->behave($case->{step});
    $_->forget for $a, $b;
    my $http = $gw->call("/pair-$buffering" . CHAT,
        { model => 'm', $case->{stream} ? (stream => \1) : () });
    ok $a->wait_requests(1), "buffering $buffering";
    ok $http->read_until($case->{wait}) if $case->{wait};

    my $start = time;
    $http->$how;
    ok $a->wait_for(sub {
        my $stats = $_[0]->stats;
        return $stats->{open} == $stats->{idle};
    }), 'no more is generated';
    cmp_ok time - $start, '<', 0.25, 'from then on';
    is $gw->logged->{llm_outcome}, 'aborted';
    is $gw->moved, $case->{moved}, 'and it is nobody\'s failure';
    is $b->stats->{requests}, 0, 'nor a call for the next';
}

subtest 'a caller that goes before its body is there costs nobody' => sub {
    $a->behave('ok')->forget;
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

# Connections that were kept.

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
    sleep 0.05;
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

subtest 'a provider that answers before it has read is understood' => sub {
    my $big = { model => 'm', input => 'x' x 2_000_000 };
    for my $buffering (qw(off on)) {
        $a->behave({ early => 1, status => 503 });
        my $r = $gw->ask("/pair-$buffering" . CHAT, $big);
        is $r->header('x-llm-provider'), 'b', "buffering $buffering";
        is $gw->moved, 'a failed=1, b successful=1';

        $a->behave({ unread => 1, status => 400 });
        $r = $gw->ask("/pair-$buffering" . CHAT, $big);
        is $r->status, 400, 'if it was read to the end or not';
        is $gw->moved, 'a neutral=1';
    }
};

subtest 'a body is sent whole to the next, in memory or in a file' => sub {
    $a->behave(503);
    for my $size (10, 5_000, 20_000, 2_000_000) {
        for my $how (qw(length chunked)) {
            my $text = join '', map { chr 97 + $_ * 7 % 26 } 1 .. $size;
            my $body = qq({"input":"$text","model":"m","n":1});
            my $json = { 'content-type' => 'application/json' };
            my @pieces = unpack '(a9000)*', $body;
            $b->forget;
            my $r = $gw->ask('/pair-off' . CHAT, undef, headers => $json,
                $how eq 'length' ? (body => $body) : (chunked => \@pieces));
            is $r->status, 200, "$size bytes, $how";
            my ($sent) = $b->requests;
            ok $sent->{body} eq $body =~ s/"model":"m"/"model":"m-of-b"/r,
                'as it came, but for the name of the model';
            is $gw->moved, 'a failed=1, b successful=1';
        }
    }
};

subtest 'a slow caller is not a silent provider' => sub {
    for my $buffering (qw(off on)) {
        $a->behave({ body => 'x' x 8e6 })->forget;
        my $http = $gw->call("/pair-$buffering" . CHAT);
        ok $a->wait_requests(1), "buffering $buffering";
        sleep 0.8;
        my $r = $http->finish;
        is length $r->body, 8_000_000;
        ok $r->complete;
        is $gw->logged->{llm_outcome}, 'ok';
        is $gw->moved, 'a successful=1';
    }
};

subtest 'a disk that takes nothing is not the break of a provider' => sub {
    my $temp = $gw->nginx->prefix . '/temp/proxy';
    rename $temp, "$temp.away" or die $!;
    $gw->nginx->file('temp/proxy', '');
    $gw->nginx->expect_log(qr/temp\/proxy/);

    for my $framing (qw(length chunked)) {
        $a->behave({ body => 'x' x 3e7, framing => $framing })->forget;
        my $http = $gw->call('/pair-on' . CHAT);
        is $gw->logged->{llm_outcome}, 'truncated', $framing;
        ok !$http->finish->complete;
        is $gw->moved, 'a successful=1';
    }

    unlink $temp or die $!;
    rename "$temp.away", $temp or die $!;
};

subtest 'but chunks that are none are' => sub {
    for my $buffering (qw(off on)) {
        $a->behave({ raw => "HTTP/1.1 200 OK\r\n"
            . "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\nnonsense" });
        my $r = $gw->ask("/pair-$buffering" . CHAT);
        ok !$r->complete, "buffering $buffering";
        is $gw->logged->{llm_outcome}, 'truncated';
        is $gw->moved, 'a successful=1 stream_errors=1';
    }
};

subtest 'a caller that stops reading is gone, and no silent provider' => sub {
    for my $buffering (qw(off on)) {
        $a->behave({ body => 'x' x 3e7 });
        my $http = $gw->call("/impatient-$buffering" . CHAT);
        is $gw->logged->{llm_outcome}, 'aborted', "buffering $buffering";
        is $gw->moved, 'a successful=1';
        $http->close;
    }
};

subtest 'a slow provider has all its time to connect, answer and speak' => sub {
    for my $buffering (qw(off on)) {
        $a->behave({ delay => 0.25 });
        is $gw->ask("/alone-$buffering" . CHAT, $STREAM)->status, 200;
        $a->behave({ delay => 0.35 });
        is $gw->ask("/alone-$buffering" . CHAT)->status, 200;
        is $gw->moved, 'a successful=2';
    }
};

subtest 'HEAD has no body, and is no different' => sub {
    $a->behave('ok');
    my $r = $gw->ask('/pair-off/v1/models', undef, method => 'HEAD');
    is $r->status, 200;
    is $r->body,   '';
    is $gw->moved, 'a neutral=1';
    is +($a->requests)[-1]{method}, 'HEAD';

    $a->behave(500);
    $r = $gw->ask('/alone-off/v1/models', undef, method => 'HEAD');
    is $r->status, 502;
    is $r->body,   '';
    ok $r->complete;
    is $gw->moved, 'a failed=1';
};

subtest 'an old client is answered as it can be' => sub {
    $a->behave($LONG);
    my $r = $gw->ask('/pair-off' . CHAT, $STREAM, version => '1.0');
    is $r->status, 200;
    like $r->body, qr/\[DONE\]/;
    is $gw->moved, 'a successful=1';
};

subtest 'two requests at once on one connection are two calls' => sub {
    $a->behave('ok')->forget;
    my $body = '{"model":"m"}';
    my $request = 'POST /pair-off' . CHAT . " HTTP/1.1\r\nhost: x\r\n"
        . "content-length: 13\r\n\r\n$body";
    my $http = $gw->call('/pair-off' . CHAT, undef, close => 0);
    $http->finish;
    $http->send($request x 2);
    ok $a->wait_requests(3);
    is $gw->moved, 'a successful=3';
    $gw->{calls} += 2;
    is $gw->logged->{status}, 200;
    $http->close;
};

subtest 'an error page may ask others' => sub {
    for my $step (500, 'reset', 'hang') {
        $a->behave($step, 'ok');
        my $r = $gw->ask('/elsewhere' . CHAT);
        is $r->status, 200, "after $step";
        is $r->header('x-llm-provider'), 'a';
        is $gw->moved, 'a successful=1 failed=1';
        is $gw->logged->{llm_outcome}, 'ok';
    }

    $a->behave(500);
    my $r = $gw->ask('/elsewhere' . CHAT);
    is $r->header('x-llm-provider'), 'b';
    is $gw->moved, 'a failed=2, b successful=1';
    is $gw->logged->{llm_outcome}, 'failover';
};

subtest 'so it may in the middle of an answer' => sub {
    $a->behave_at('/v1/models/old',
        { body => 'old', headers => { etag => '"x"' } }, { body => 'new' });
    my $r = $gw->ask('/matched/v1/models/old', undef, method => 'GET',
        headers => { 'if-match' => '"y"' });
    is $r->status, 200;
    is $r->body,   'new';
    is $gw->moved, 'a neutral=2';
};

subtest 'a gate that lets a request go elsewhere holds no permit' => sub {
    my $gw = LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=1 open=200ms'
            . ' success_threshold=1;' ],
        locations => {
            '/'      => 'llm_gate llm; try_files /none @tried;'
                . ' proxy_pass http://llm;',
            '@tried' => 'llm_pass llm prefix=/;',
        },
    );
    $gw->provider('a')->behave(500, 'ok');
    is $gw->ask->status, 502;
    ok $gw->wait_for(sub { !$gw->status('a')->{time_until_retry} });
    is $gw->ask->status, 200, 'it is the probe itself';
    is $gw->status('a')->{state}, 'closed';
    $gw->done;
};

subtest 'a subrequest is a call like any other' => sub {
    $a->behave_at('/v1/models', 'ok', 500);
    $a->behave('ok');
    my $r = $gw->ask('/around', undef);
    is $r->status, 200;
    is $gw->moved, 'a successful=1 neutral=1';
    $r = $gw->ask('/around', undef);
    is $r->status, 500, 'its failure is the failure of the main request';
    is $gw->moved, 'a failed=1';
    $a->behave_at('/v1/models', 'ok');
};

subtest 'a provider does not choose what else nginx does' => sub {
    $a->behave({ body => 'right', headers => {
        'x-accel-redirect' => '/file', 'x-accel-expires' => 60,
        'x-accel-buffering' => 'no', 'x-accel-limit-rate' => 1,
        'x-llm-provider' => 'evil', 'x-llm-attempts' => 77,
    } });
    for my $buffering (qw(off on)) {
        my $r = $gw->ask("/pair-$buffering" . CHAT);
        is $r->body, 'right';
        is $r->header('x-accel-redirect'), undef;
        is $r->header('x-llm-provider'),   'a';
        is $r->header('x-llm-attempts'),   1;
        is $gw->moved, 'a successful=1';
    }
};

subtest 'an answer out of the cache is no call, and costs no permit' => sub {
    $a->behave({ body => 'kept' })->forget;
    is $gw->ask('/cache' . CHAT)->body, 'kept';
    is $gw->moved, 'a successful=1';
    for (1 .. 3) {
        my $r = $gw->ask('/cache' . CHAT);
        is $r->body, 'kept';
        like $gw->moved, qr/^(?:a neutral=1|)$/, 'no verdict';
    }
    is $a->stats->{requests}, 1;
};

subtest 'callers over HTTP/2 see the same' => sub {
    plan skip_all => 'no curl with HTTP/2' unless LLM::HTTP->has_h2;
    for my $buffering (qw(off on)) {
        my $uri = "/pair-$buffering" . CHAT;
        $a->behave('ok');
        my $r = $gw->h2($uri, { model => 'm' });
        is $r->version, '2', "buffering $buffering";
        is $r->status,  200;
        is $gw->moved, 'a successful=1';

        $a->behave($LONG);
        $r = $gw->h2($uri, $STREAM);
        like $r->body, qr/\[DONE\]/;
        is $gw->moved, 'a successful=1';

        $a->behave(503);
        $r = $gw->h2($uri, { model => 'm', i => 'x' x 50_000 });
        is $r->header('x-llm-provider'), 'b';
        is $gw->moved, 'a failed=1, b successful=1';

        $a->behave({ %$LONG, reset => '2 tokens' });
        $r = $gw->h2($uri, $STREAM);
        ok !$r->complete, 'a break';
        is $gw->moved, 'a successful=1 stream_errors=1';

        $a->behave('hang');
        $r = $gw->h2($uri, { model => 'm' }, timeout => 0.15);
        ok !$r->complete, 'the caller leaves';
        is $gw->logged->{llm_outcome}, 'aborted';
        is $gw->moved, 'a neutral=1';

        $a->behave({ tokens => 500, pace => 0.02 });
        $r = $gw->h2($uri, $STREAM, timeout => 0.3);
        ok !$r->complete, 'the caller leaves a stream';
        is $gw->logged->{llm_outcome}, 'aborted';
        is $gw->moved, 'a successful=1';
    }
};

subtest 'an error that is framed beyond all measure is read no further' => sub {
    $a->behave({ raw => "HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n"
        . '1;' . 'x' x 400_000 . "\r\n{\r\n0\r\n\r\n" });
    isnt $gw->ask('/alone-off' . CHAT)->status, undef, 'the worker lives on';
    is $gw->moved, 'a neutral=1';
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
    my $gw = paused('llm_retry rounds=2 base=700ms jitter=0;'
        . ' llm_deadline 1500ms;');
    $gw->provider('a')->behave(500);
    my $http = $gw->call;
    ok $gw->wait_for(sub { $gw->nginx->error_log =~ /next after a pause/ });

    # a worker that is late finds both of them over
    my ($worker) = $gw->nginx->workers;
    kill STOP => $worker;
    sleep 1.6;
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

subtest 'what has to go through a file is not taken for broken' => sub {
    $a->behave({ events => [ (token() x 70_000), "data: [DONE]\n\n" ] });
    my $http = $gw->call('/cache' . CHAT,
        { model => 'm', stream => \1, input => 'long' });
    sleep 1;
    my $r = $http->finish;
    ok $r->complete;
    like $r->body, qr/data: \[DONE\]\n\n\z/;
    is $gw->moved, 'a successful=1';
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

subtest 'a TLS handshake that fails or hangs is a failure' => sub {
    my $tls = LLM::TLS->new('127.0.0.1');
    my $gw = tls_gateway($tls);
    my $a = $gw->provider('a');
    is $gw->ask->header('x-llm-provider'), 'a';
    is $gw->moved, 'a successful=1';
    $a->drop;

    my %fault = (
        hang  => qr/^timed out while connecting$/,
        close => qr/^(?:TLS handshake|connection) failed$/,
        reset => qr/^(?:TLS handshake|connection) failed$/,
    );
    for my $how (sort keys %fault) {
        $a->greet($how);
        is $gw->ask->header('x-llm-provider'), 'b', $how;
        is $gw->moved, 'a failed=1, b successful=1';
        like $gw->status('a')->{last_error}, $fault{$how};
    }
    $gw->done;

    $gw = tls_gateway(LLM::TLS->new('127.0.0.1'), $tls->ca);
    is $gw->ask->header('x-llm-provider'), 'b', 'an unknown authority';
    is $gw->moved, 'a failed=1, b successful=1';
    is $gw->status('a')->{last_error}, 'TLS handshake failed';
    $gw->done;
};

sub tls_gateway {
    my ($tls, $ca) = @_;

    my $gw = LLM::Gateway->new(
        providers => [ a => "$NEVER timeout connect=2s;", b => '' ],
        http => 'proxy_ssl_trusted_certificate ' . ($ca // $tls->ca) . ';',
        sources => { a => LLM::Provider->new(name => 'a', tls => $tls) },
    );
    return $gw;
}

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_" for qw(a b);

done_testing;
