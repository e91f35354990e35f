# Whichever way a call ends, it ends for the caller as it should, its provider
# has exactly one verdict, and nothing is left over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::TLS;
use Test::More;
use Time::HiRes qw(sleep);

use constant CHAT => '/v1/chat/completions';

my $TIMES = 'timeout connect=600ms header=600ms answer=700ms idle=600ms;';
my $NEVER = 'circuit failure_threshold=200;';

my $gw = LLM::Gateway->new(
    providers => [
        a    => "$NEVER $TIMES",
        slow => "$NEVER timeout header=1500ms answer=4s idle=1500ms;",
        b    => "$NEVER model m m-of-b;",
    ],
    routes    => { pair => 'a b', alone => 'a', slow => 'slow b' },
    http      => 'sendfile on; client_body_buffer_size 16k;'
        . 'client_max_body_size 8m;'
        . 'proxy_buffer_size 4k; proxy_buffers 8 4k;'
        . 'proxy_busy_buffers_size 8k;'
        . 'proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;',
    locations => {
        map({ my $route = $_;
            map { ("/$route-$_" =>
                "llm_pass $route prefix=/$route-$_; proxy_buffering $_;") }
            qw(on off) } qw(pair alone slow)),
        map({ ("/impatient-$_" => "llm_pass alone prefix=/impatient-$_;"
            . " proxy_buffering $_; proxy_max_temp_file_size 0;"
            . ' send_timeout 200ms;') } qw(on off)),
        '/cache' => 'llm_pass alone prefix=/cache; proxy_cache cache;'
            . ' proxy_cache_methods GET POST; proxy_cache_key $request_body;'
            . ' proxy_buffering on; proxy_cache_valid 200 1h;',
        '= /file' => 'internal; return 200 "the wrong answer";',
    },
);

my ($a, $slow, $b) = map { $gw->provider($_) } qw(a slow b);
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
          map { ('x', \0.2) } 1 .. 10 ] } },
    { name => 'tokens that trickle', stream => 1,
      step => { tokens => 10, pace => 0.2 } },
);

for my $case (@WELL) {
    subtest "$case->{name} comes whole" => sub {
        for my $buffering (qw(off on)) {
            $slow->behave($case->{step});
            my $r = $gw->ask("/slow-$buffering" . CHAT,
                { model => 'm', $case->{stream} ? (stream => \1) : () });
            my $expected = ref $case->{step} && $case->{step}{status} || 200;
            is $r->status, ref $case->{step} ? $expected : $case->{step},
                "buffering $buffering";
            ok $r->complete;
            is $r->body, $case->{step}{body}, 'its bytes'
                if ref $case->{step} && defined $case->{step}{body};
            is $gw->logged->{llm_outcome}, 'ok';
            is $gw->moved, 'slow successful=1';
        }
    };
}

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
        sleep 1;
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
        $slow->behave({ delay => 0.5 });
        is $gw->ask("/slow-$buffering" . CHAT, $STREAM)->status, 200;
        $slow->behave({ delay => 2 });
        is $gw->ask("/slow-$buffering" . CHAT)->status, 200;
        is $gw->moved, 'slow successful=2';
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

        $uri = "/slow-$buffering" . CHAT;
        $slow->behave('hang');
        $r = $gw->h2($uri, { model => 'm' }, timeout => 1);
        ok !$r->complete, 'the caller leaves';
        is $gw->logged->{llm_outcome}, 'aborted';
        is $gw->moved, 'slow neutral=1';

        $slow->behave({ tokens => 500, pace => 0.02 });
        $r = $gw->h2($uri, $STREAM, timeout => 1);
        ok !$r->complete, 'the caller leaves a stream';
        is $gw->logged->{llm_outcome}, 'aborted';
        is $gw->moved, 'slow successful=1';
    }
};

subtest 'an error that is framed beyond all measure is read no further' => sub {
    $a->behave({ raw => "HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n"
        . '1;' . 'x' x 400_000 . "\r\n{\r\n0\r\n\r\n" });
    isnt $gw->ask('/alone-off' . CHAT)->status, undef, 'the worker lives on';
    is $gw->moved, 'a neutral=1';
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

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_"
    for qw(a slow b);

done_testing;
