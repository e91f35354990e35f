# A stream is the caller's from its first content token on.  What goes wrong
# before is nothing the caller sees; what goes wrong behind is told to the
# caller, and never looks complete.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::Provider;
use LLM::Stream qw(normal error_events keep_alives pings);
use LLM::TLS;
use Test::More;
use Time::HiRes qw(time);

my @URI = (
    [ chat        => '/v1/chat/completions' ],
    [ completions => '/v1/completions' ],
    [ responses   => '/v1/responses' ],
    [ messages    => '/v1/messages' ],
);

my $CHAT   = '/v1/chat/completions';
my $STREAM = { model => 'm', stream => \1 };
my $NEVER  = 'circuit failure_threshold=200;';
my $TIMES  = 'timeout connect=10s header=10s answer=10s';

my $tls = LLM::TLS->new('127.0.0.1');

# the provider in question has another one behind it, or is alone; for what is
# well it has all the time it wants

my %ROUTE = (
    pair         => 'llm_use a; llm_use b;',
    alone        => 'llm_use a;',
    tls          => 'llm_use s; llm_use b;',
    patient_pair => 'llm_use patient_a; llm_use b;',
    patient_tls  => 'llm_use patient_s; llm_use b;',
);

my $plain  = LLM::Provider->new(name => 'a');
my $secure = LLM::Provider->new(name => 's', tls => $tls);

my $gw = LLM::Gateway->new(
    providers => [
        map({ $_ => "$NEVER $TIMES idle=400ms;" } qw(a s)),
        map({ $_ => "$NEVER $TIMES idle=1m;" } qw(patient_a patient_s)),
        b => "$NEVER model m m-of-b;",
    ],
    sources   => { a => $plain, patient_a => $plain,
                   s => $secure, patient_s => $secure },
    routes    => {},
    http      => join(' ', 'proxy_ssl_trusted_certificate', $tls->ca . ';',
        map { "upstream $_ { $ROUTE{$_} keepalive 16; }" } sort keys %ROUTE),
    locations => { map {
        my $route = $_;
        map { ("/$route-$_/" => "llm_pass $route prefix=/$route-$_;"
            . " proxy_buffering $_;") } qw(off on);
    } keys %ROUTE },
);

my ($first, $next) = map { $gw->provider($_) } qw(a b);

# how a call may be made: plain or TLS, buffered or not, HTTP/1.1 or 2; where
# a stream of HTTP/2 is reset, curl forgets what it has just read

my @MODES = (
    { name => 'plain', from => 'a', pair => 'pair-off' },
    { name => 'buffered', from => 'a', pair => 'pair-on' },
    { name => 'TLS', from => 's', pair => 'tls-off' },
    { name => 'TLS, buffered', from => 's', pair => 'tls-on' },
    LLM::HTTP->has_h2
        ? { name => 'HTTP/2', from => 'a', pair => 'pair-off', h2 => 1 }
        : (),
);

sub patient {
    my $mode = shift;

    return { %$mode, map { $_ => "patient_$mode->{$_}" } qw(from pair) };
}

my $turn = 0;

# every case meets every dialect, and each time another mode

sub each_form {
    my ($case, $test) = @_;

    for my $form (@URI) {
        next if $case->{form} && $case->{form} ne $form->[0];
        my $mode = $MODES[ $turn++ % @MODES ];
        subtest "$form->[0], $mode->{name}" => sub {
            $test->($case, $mode, @$form);
        };
    }
    return;
}

sub ask {
    my ($mode, $uri, @how) = @_;

    my $way = $mode->{h2} ? 'h2' : 'ask';
    return $gw->$way("/$mode->{pair}$uri", $STREAM, @how);
}

# before the first token

my $TOKEN = qq(data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n);
my $KEEP_ALIVES = keep_alives(400);
my $PINGS = pings(400);

my @BEFORE = (
    { name => 'an error event', step => { error => 0 },
      last => 502, fault => 'error event' },
    { name => 'an error event that is late',
      step => { pings => 2, first => 0.1, error => 0 },
      last => 502, fault => 'error event' },
    { name => 'the end of the connection', step => { close => '0 tokens' },
      last => 502, fault => 'broken off' },
    { name => 'the end of the connection within an event',
      step => { close => '30 body bytes' },
      last => 502, fault => 'broken off' },
    { name => 'a reset', step => { pings => 1, first => 0.05,
      reset => '0 tokens' }, last => 502, fault => 'broken off' },
    { name => 'an end of the stream',
      step => { pings => 1, text => [], finish => 0 },
      last => 502, fault => 'broken off' },
    { name => 'silence', step => { stall => '0 tokens' },
      last => 504, fault => 'stalled' },
    { name => 'silence within an event', step => { stall => '30 body bytes' },
      last => 504, fault => 'stalled' },
    { name => 'an unreadable event', step => { malformed => 0 },
      last => 502, fault => 'unreadable event' },
    { name => 'an event that is no JSON',
      step => { malformed => 0, malformed_frame => "data: <html>\n\n" },
      last => 502, fault => 'unreadable event' },
    { name => 'nothing but keep-alives', step => { events => $KEEP_ALIVES },
      last => 504, fault => 'stalled' },
    { name => 'nothing but pings', step => { events => $PINGS },
      last => 504, fault => 'stalled' },
    { name => 'nothing but [DONE]', form => 'chat',
      step => { events => [ "data: [DONE]\n\n" ] },
      last => 502, fault => 'empty answer' },
    { name => 'nothing but [DONE], and a late end', form => 'chat',
      step => { events => [ "data: [DONE]\n\n", \0.05 ] },
      last => 502, fault => 'empty answer' },
    { name => 'a failed response', form => 'responses', step => { events => [
          qq(event: response.created\ndata: {"type":"response.created",)
        . qq("response":{"status":"in_progress"}}\n\n), \0.05,
          qq(event: response.failed\ndata: {"type":"response.failed",)
        . qq("response":{"status":"failed","error":{"code":"server_error",)
        . qq("message":"sorry"}}}\n\n) ] },
      last => 502, fault => 'error event' },
);

for my $case (@BEFORE) {
    subtest "$case->{name} before the first token is not the caller's" => sub {
        each_form($case, \&before);
    };
}

sub before {
    my ($case, $mode, $form, $uri) = @_;

    my $p = $gw->provider($mode->{from});
    $p->behave($case->{step});
    $next->behave('ok');

    my $r = ask($mode, $uri);
    is $r->status, 200;
    ok $r->complete;
    is $r->header('x-llm-provider'), 'b';
    is $r->header('x-llm-attempts'), 2;
    is normal($r->body), normal($next->client->post($uri,
        { model => 'm-of-b', stream => \1 })->body), 'its bytes';
    is $gw->moved, "$mode->{from} failed=1, b successful=1";
    is $gw->logged->{llm_outcome}, 'failover';
    is $gw->status($mode->{from})->{last_error}, $case->{fault};

    return if $mode->{from} ne 'a';
    $mode = { %$mode, pair => $mode->{pair} =~ s/pair/alone/r };
    $r = ask($mode, $uri);
    is $r->status, $case->{last}, 'and alone';
    is $r->header('content-type'), 'application/json'
        or return;
    like $r->json->{error}{message}, qr/\ba \(\Q$case->{fault}\E\)/;
    is $r->json->{type}, 'error' if $form eq 'messages';
    is $gw->moved, 'a failed=1';
    is $gw->logged->{llm_outcome}, 'error';
}

# what is well

my @WELL = (
    { name => 'a stream', step => {} },
    { name => 'a stream with its usage', step => { usage => 1 } },
    { name => 'tool calls', step => { kind => 'tool' } },
    { name => 'reasoning', step => { kind => 'reasoning' } },
    { name => 'a refusal', step => { kind => 'refusal' } },
    { name => 'a stream in small pieces', step => { pieces => 40 } },
    { name => 'pings before the first token',
      step => { pings => 3, first => 0.1 } },
    { name => 'a stream that ends with its connection',
      step => { framing => 'close' } },
    { name => 'a stream of known length', step => { framing => 'length' } },
    { name => 'a finish without [DONE]', step => { done => 0 } },
    { name => 'a finish without [DONE], after a while',
      step => { done => 0, pace => 0.05 } },
    { name => 'a finish without [DONE] at the end of a connection',
      step => { done => 0, framing => 'close', pace => 0.05 } },
    { name => 'a finish behind which nothing comes', open => 1,
      step => { done => 0, framing => 'close', stall => 'end' } },
    { name => 'a finish and silence, after a while', open => 1,
      step => { done => 0, framing => 'close', pace => 0.05,
                stall => 'end' } },
    { name => 'an end that nobody waits for', open => 1,
      step => { framing => 'close', stall => 'end' } },
    { name => 'a stream of 4000 tokens', step => { tokens => 4000 } },
    { name => 'an unreadable event behind the first token', unreadable => 1,
      step => { malformed => 2 } },
    { name => 'unreadable events that come alone', unreadable => 1,
      step => { malformed => 2, pace => 0.05 } },
    { name => 'a stream that is slow to begin', step => { first => 0.25 } },
    { name => 'an answer without a word', step => { text => [] } },
);

for my $case (@WELL) {
    subtest "$case->{name} comes whole and unchanged" => sub {
        each_form($case, \&well);
    };
}

sub well {
    my ($case, $mode, $form, $uri) = @_;

    $mode = patient($mode);
    my $p = $gw->provider($mode->{from})->behave($case->{step});
    my $before = $gw->status($mode->{from})->{unreadable_frames};
    my $direct = $p->client(timeout => $case->{open} ? 1 : 10)
        ->post($uri, $STREAM);

    my $start = time;
    my $r = ask($mode, $uri);
    cmp_ok time - $start, '<', 10, 'at once';
    is $r->status, 200;
    ok $r->complete;
    ok normal($r->body) eq normal($direct->body), 'its bytes';
    is $r->header('x-llm-attempts'), 1;
    is $gw->moved, "$mode->{from} successful=1";
    is $gw->logged->{llm_outcome}, 'ok';
    is $gw->status($mode->{from})->{unreadable_frames} - ($before // 0),
        $case->{unreadable} // 0, 'unreadable events';
    $p->drop if $case->{open};
}

# behind the first token

my $LONG = { tokens => 4, pace => 0.03 };

my @AFTER = (
    { name => 'an end of the connection', step => { close => '2 tokens' },
      fault => 'broken off' },
    { name => 'a reset', step => { reset => '2 tokens' },
      fault => 'broken off' },
    { name => 'silence', step => { stall => '2 tokens' }, fault => 'stalled' },
    { name => 'an end without a finish', step => { finish => 0 },
      fault => 'broken off' },
    { name => 'an end of the connection without a finish',
      step => { finish => 0, framing => 'close' }, fault => 'broken off' },
    { name => 'an end within an event', fault => 'broken off', within => 1 },
    { name => 'silence within an event', fault => 'stalled', within => 1,
      how => 'stall' },
    { name => 'chunks that are none', fault => 'broken off', form => 'chat',
      step => { raw => [ "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream"
          . "\r\ntransfer-encoding: chunked\r\n\r\n", \0.03, map({
          (sprintf("%x\r\n%s\r\n", length $TOKEN, $TOKEN), \0.03) } 1 .. 3),
          "what?\r\n" ] } },
);

for my $case (@AFTER) {
    subtest "$case->{name} behind the first token is told once" => sub {
        each_form($case, \&after);
    };
}

sub after {
    my ($case, $mode, $form, $uri) = @_;

    my $p = $gw->provider($mode->{from});
    my $step = { %$LONG, %{ $case->{step} // {} } };
    if ($case->{within}) {
        $p->behave({ %$LONG, close => '2 tokens' });
        my $size = length $p->client->post($uri, $STREAM)->body;
        $step = { %$LONG,
            $case->{how} // 'close' => $size - 9 . ' body bytes' };
    }
    $step = $case->{step} if $case->{step} && $case->{step}{raw};

    $p->behave($step)->drop;
    my $direct = $p->client(timeout => 0.5)->post($uri, $STREAM)->body;
    my $r = ask($mode, $uri);
    is $r->status, 200;
    ok !$r->complete, 'not as if it were complete';
    is $r->header('x-llm-provider'), $mode->{from};

    my $told = substr normal($r->body), 0, length normal($direct);
    is $told, normal($direct), 'what came is passed on' unless $mode->{h2};
    unlike $r->body, qr/\[DONE\]/;
    told($r, $case, $form) unless $mode->{h2};

    my $line = $gw->logged;
    is $line->{llm_outcome},  'truncated';
    is $line->{llm_attempts}, 1;
    is $gw->moved, "$mode->{from} successful=1 stream_errors=1";
    my $status = $gw->status($mode->{from});
    is $status->{last_error}, $case->{fault};
    is $status->{failure_count}, 1, 'one failure';

    $p->behave('ok');
    is ask($mode, $uri)->status, 200;
    is $gw->moved, "$mode->{from} successful=1";
}

# curl drops what of a stream came together with its reset

sub told {
    my ($r, $case, $form) = @_;

    my @errors = error_events($r);
    is @errors, 1, 'one error';
    like $r->body, qr/"error".*\n\n\z/, 'at the end';
    my $error = eval { JSON::PP->new->decode($errors[0]{data}) };
    is $@, '', 'it is JSON';
    if ($form eq 'chat' || $form eq 'completions') {
        is $error->{error}{type}, 'server_error';
        like $error->{error}{message}, qr/\Q$case->{fault}\E/;
    } else {
        is $errors[0]{event}, 'error';
        is $error->{type},    'error';
        like $error->{message} // $error->{error}{message},
            qr/\Q$case->{fault}\E/;
    }
}

subtest 'an error event behind the first token comes, and counts' => sub {
    each_form({}, sub {
        my ($case, $mode, $form, $uri) = @_;

        for my $pace (0, 0.03) {
            my $p = $gw->provider($mode->{from})
                ->behave({ tokens => 4, pace => $pace, error => 2 });
            my $direct = $p->client->post($uri, $STREAM)->body;
            my $r = ask($mode, $uri);
            if ($pace) {
                is $r->status, 200;
                ok !$r->complete;
                is normal($r->body), normal($direct), 'unchanged'
                    unless $mode->{h2};
                is $gw->moved, "$mode->{from} successful=1 stream_errors=1";
                is $gw->logged->{llm_outcome}, 'truncated';
                is $gw->status($mode->{from})->{failure_count}, 1;
            } else {
                like $gw->moved, qr/^(?:$mode->{from}\ failed=1,\ b\ \w+=1
                    |$mode->{from}\ successful=1\ stream_errors=1)$/x,
                    'or nobody saw a token of it';
            }
            $p->behave('ok');
            ask($mode, $uri);
            $gw->moved;
        }
    });
};

subtest 'a stream that said its length can still be told to be broken' => sub {
    for my $mode (grep { !$_->{h2} } @MODES) {
        $gw->provider($mode->{from})->behave({ framing => 'length',
            finish => 0, first => 0.03, pace => 0.03 });
        my $r = ask($mode, $CHAT);
        is $r->header('content-length'), undef, $mode->{name};
        is error_events($r), 1, 'an error event, which no length cuts off';
        ok !$r->complete, 'and no proper end';
        is $gw->moved, "$mode->{from} successful=1 stream_errors=1";
    }
};

subtest 'what comes behind the length of a stream is none of it' => sub {
    for my $mode (grep { !$_->{h2} } @MODES) {
        $gw->provider($mode->{from})->behave({ raw => "HTTP/1.1 200 OK\r\n"
            . "Content-Type: text/event-stream\r\nContent-Length: 20\r\n"
            . "\r\n${TOKEN}data: [DONE]\n\n" });
        my $r = ask($mode, $CHAT);
        is $r->header('x-llm-provider'), 'b', $mode->{name};
        is $gw->moved, "$mode->{from} failed=1, b successful=1";
    }
};

subtest 'a [DONE] without a finish is an end' => sub {
    for my $pause ([], [\0.03]) {
        for my $mode (@MODES) {
            $gw->provider($mode->{from})->behave(
                { events => [ $TOKEN, @$pause, "data: [DONE]\n\n" ] });
            my $r = ask($mode, $CHAT);
            is $r->body, "${TOKEN}data: [DONE]\n\n", $mode->{name};
            ok $r->complete;
            is $gw->moved, "$mode->{from} successful=1";
            is $gw->logged->{llm_outcome}, 'ok';
        }
    }
};

subtest 'of several answers each has to end' => sub {
    my ($one, $two) = map { my $i = $_; [ map {
        qq(data: {"choices":[{"index":$i,"delta":{"content":"hi"},)
            . qq("finish_reason":$_}]}\n\n) } 'null', '"stop"' ] } 0, 1;
    my @broken = ($one->[0], \0.03, $two->[0], $one->[1], \0.03);
    my @whole  = (@broken, $two->[1]);

    for my $mode (@MODES) {
        my $p   = $gw->provider($mode->{from});
        my $ask = sub {
            my $way = $mode->{h2} ? 'h2' : 'ask';
            return $gw->$way("/$mode->{pair}$CHAT", { %$STREAM, n => 2 });
        };
        $p->behave({ events => \@whole });
        my $r = $ask->();
        ok $r->complete, $mode->{name};
        is $gw->moved, "$mode->{from} successful=1";

        $p->behave({ events => \@broken });
        $r = $ask->();
        ok !$r->complete;
        is scalar(error_events($r)), 1 unless $mode->{h2};
        is $gw->moved, "$mode->{from} successful=1 stream_errors=1";
        $p->behave('ok');
        $ask->();
        $gw->moved;
    }
};

subtest 'events are read as they may be written' => sub {
    my $token = '{"choices":[{"index":0,"delta":{"content":"hi"}}]}';
    my $done  = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}';
    my %written = (
        'CRLF'      => "data: $token\r\n\r\ndata: $done\r\n\r\n",
        'CR'        => "data: $token\r\rdata: $done\r\r",
        'no blank'  => "data:$token\n\ndata:$done\n\n",
        'two lines' => "data: {\ndata: " . substr($token, 1)
            . "\n\ndata: $done\n\n",
        'a mark, and fields' => "\xef\xbb\xbfid: 1\nevent: message\n"
            . "data: $token\n\nretry: 5\ndata: $done\n\n",
    );
    for my $how (sort keys %written) {
        for my $pieces (0, 7) {
            $first->behave({ content_type => 'text/event-stream',
                body => $written{$how}, framing => 'chunked',
                $pieces ? (pieces => $pieces, gap => 0.001) : () });
            my $r = $gw->ask("/pair-off$CHAT", $STREAM);
            is $r->header('x-llm-provider'), 'a', $how;
            is $r->body, $written{$how};
            ok $r->complete;
            is $gw->moved, 'a successful=1';
        }
    }
};

subtest 'what is long before the first token is held, and passed on' => sub {
    my $created = 'event: response.created' . "\n"
        . 'data: {"type":"response.created","response":{"instructions":"'
        . 'x' x 100_000 . '"}}' . "\n\n";
    my @rest = (
        qq(event: response.output_text.delta\ndata: )
            . qq({"type":"response.output_text.delta","delta":"hi"}\n\n),
        qq(event: response.completed\ndata: {"type":"response.completed",)
            . qq("response":{"status":"completed"}}\n\n),
    );
    for my $mode (@MODES) {
        my $p = $gw->provider($mode->{from})
            ->behave({ events => [ $created, \0.05, @rest ] });
        my $r = ask($mode, '/v1/responses');
        ok $r->body eq join('', $created, @rest), $mode->{name};
        ok $r->complete;
        is $gw->moved, "$mode->{from} successful=1";

        $p->behave({ events => [ $created, \0.05 ] });
        $r = ask($mode, '/v1/responses');
        is $r->header('x-llm-provider'), 'b';
        is $gw->moved, "$mode->{from} failed=1, b successful=1";

        $p->behave({ events => [ $created x 5, \0.05, @rest ] });
        $r = ask($mode, '/v1/responses');
        ok $r->body eq join('', $created x 5, @rest), 'or more';
        ok $r->complete;
        is $gw->moved, "$mode->{from} successful=1";
    }
};

subtest 'keep-alives do not make a stream live' => sub {
    for my $mode (@MODES) {
        for my $idle ($KEEP_ALIVES, $PINGS) {
            my $p = $gw->provider($mode->{from})
                ->behave({ events => [ $TOKEN, \0.05, @$idle ] });
            my $start = time;
            my $r = ask($mode, $CHAT);
            cmp_ok time - $start, '<', 8, $mode->{name};
            ok !$r->complete;
            is scalar(error_events($r)), 1 unless $mode->{h2};
            is $gw->moved, "$mode->{from} successful=1 stream_errors=1";
            is $gw->status($mode->{from})->{last_error}, 'stalled';
            $p->behave('ok');
            ask($mode, $CHAT);
            $gw->moved;
        }
    }
};

subtest 'tokens arrive one by one, as they come' => sub {
    for my $mode (map { patient($_) } grep { !$_->{h2} } @MODES) {
        my $p = $gw->provider($mode->{from});
        for my $n (1 .. 3) {
            $p->behave({ tokens => 3, stall => "$n tokens" });
            my $http = $gw->call("/$mode->{pair}$CHAT", $STREAM);
            ok $http->read_until(qr/token$n/), "$mode->{name}, number $n";
            $http->close;
            is $gw->moved, "$mode->{from} successful=1";
        }
    }
};

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_"
    for qw(a s patient_a patient_s b);

done_testing;
