# A stream is the caller's from its first content token on.  What goes wrong
# before is nothing the caller sees; what goes wrong behind is told to the
# caller, and never looks complete.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::TLS;
use List::Util qw(max sum0);
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
my $TIMES  = 'timeout connect=2s header=2s answer=2s idle=300ms;';

my $tls = LLM::TLS->new('127.0.0.1');

# what a route does, and the routes: the provider in question is alone, or has
# another one behind it

my %COMMIT = (
    first    => '',
    header   => 'llm_commit header;',
    time     => 'llm_commit window=400ms;',
    size     => 'llm_commit window=4k;',
    complete => 'llm_commit complete;',
    deadline => 'llm_deadline 400ms;',
);

my @routes = map {
    my $how = $_;
    map { [ "$_->[0]_$how", $_->[1], $COMMIT{$how} ] }
        [ pair => 'llm_use a; llm_use b;' ], [ alone => 'llm_use a;' ];
} sort keys %COMMIT;
push @routes, [ tls_first => 'llm_use s; llm_use b;', '' ],
    [ hasty => 'llm_use hasty; llm_use b;', '' ],
    [ hasty_alone => 'llm_use hasty;', '' ];

my $gw = LLM::Gateway->new(
    providers => [
        a     => "$NEVER $TIMES",
        s     => "$NEVER $TIMES",
        hasty => "$NEVER timeout first_token=300ms idle=5s;",
        b     => "$NEVER model m m-of-b;",
    ],
    sources   => { s => LLM::Provider->new(name => 's', tls => $tls) },
    routes    => {},
    http      => join(' ', 'proxy_ssl_trusted_certificate', $tls->ca . ';',
        map { "upstream $_->[0] { $_->[1] keepalive 16; $_->[2] }" } @routes),
    locations => { map {
        my ($route) = @$_;
        map { ("/$route-$_/" => "llm_pass $route prefix=/$route-$_;"
            . " proxy_buffering $_;") } qw(off on);
    } @routes },
);

my ($first, $s, $hasty, $next) = map { $gw->provider($_) } qw(a s hasty b);

# how a call may be made: plain or TLS, buffered or not, HTTP/1.1 or 2; where
# a stream of HTTP/2 is reset, curl forgets what it has just read

my @MODES = (
    { name => 'plain', from => 'a', pair => 'pair_first-off' },
    { name => 'buffered', from => 'a', pair => 'pair_first-on' },
    { name => 'TLS', from => 's', pair => 'tls_first-off' },
    { name => 'TLS, buffered', from => 's', pair => 'tls_first-on' },
    LLM::HTTP->has_h2
        ? { name => 'HTTP/2', from => 'a', pair => 'pair_first-off', h2 => 1 }
        : (),
);

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

# names and times aside, which are other ones with each answer

sub normal {
    my $bytes = shift;

    return $bytes =~ s/(?<![a-z])([abs]|hasty)-\d+/$1-N/gr
        =~ s/"created(?:_at)?":\d+/"created":T/gr;
}

sub error_events {
    return grep { ($_->{data} // '') =~ /"error"/ } shift->events;
}

# before the first token

my $TOKEN = qq(data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n);
my $KEEP_ALIVES = [ map { (": keep-alive\n\n", \0.05) } 1 .. 100 ];
my $PINGS = [ map {
    (qq(event: ping\ndata: {"type":"ping"}\n\n), \0.05) } 1 .. 100 ];

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

    my $p = $gw->provider($mode->{from})->behave($case->{step});
    my $before = $gw->status($mode->{from})->{unreadable_frames};
    my $direct = $p->client(timeout => $case->{open} ? 0.4 : 10)
        ->post($uri, $STREAM);

    my $start = time;
    my $r = ask($mode, $uri);
    cmp_ok time - $start, '<', 2, 'at once';
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
            my $r = $gw->ask("/pair_first-off$CHAT", $STREAM);
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

# deadlines

subtest 'a first token has its time, whatever else comes' => sub {
    for my $step ('hang', { first => 2 }, { delay => 2 },
        { events => $KEEP_ALIVES }, { events => $PINGS },
        { stall => 'header' }, { stall => '30 body bytes' })
    {
        for my $buffering (qw(off on)) {
            $hasty->behave($step);
            my $start = time;
            my $r = $gw->ask("/hasty-$buffering$CHAT", $STREAM);
            my $took = time - $start;
            is $r->header('x-llm-provider'), 'b';
            cmp_ok $took, '>', 0.25;
            cmp_ok $took, '<', 1;
            is $gw->moved, 'hasty failed=1, b successful=1';
            is $gw->status('hasty')->{last_error}, 'no first token in time';
        }
    }
    is $gw->ask("/hasty_alone-off$CHAT", $STREAM)->status, 504, 'alone';
    is $gw->moved, 'hasty failed=1';

    $hasty->behave({ delay => 0.5 });
    is $gw->ask("/hasty_alone-off$CHAT")->status, 200,
        'a call that does not stream has no first token';
    $hasty->behave({ tokens => 3, pace => 0.4 });
    ok $gw->ask("/hasty_alone-off$CHAT", $STREAM)->complete,
        'nor has it to be quick behind that';
    is $gw->moved, 'hasty successful=2';
};

subtest 'keep-alives do not make a stream live' => sub {
    for my $mode (@MODES) {
        for my $idle ($KEEP_ALIVES, $PINGS) {
            my $p = $gw->provider($mode->{from})
                ->behave({ events => [ $TOKEN, \0.05, @$idle ] });
            my $start = time;
            my $r = ask($mode, $CHAT);
            cmp_ok time - $start, '<', 1.5, $mode->{name};
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

subtest 'the deadline of a request bounds everything' => sub {
    for my $buffering (qw(off on)) {
        for my $step ('hang', { first => 2 }, { delay => 2 },
            { events => $KEEP_ALIVES })
        {
            my $ask = { %$STREAM };
            $first->behave($step);
            $next->behave('ok')->forget;
            my $start = time;
            my $r = $gw->ask("/alone_deadline-$buffering$CHAT", $ask);
            cmp_ok time - $start, '<', 1;
            is $r->status, 504;
            is $gw->moved, 'a failed=1';
        }
        $first->behave('hang');
        my $r = $gw->ask("/pair_deadline-$buffering$CHAT");
        is $r->status, 504, 'nobody is asked when it is over';
        is $next->stats->{requests}, 0;
        is $gw->moved, 'a failed=1';

        $first->behave({ tokens => 100, pace => 0.05 });
        my $start = time;
        $r = $gw->ask("/pair_deadline-$buffering$CHAT", $STREAM);
        cmp_ok time - $start, '<', 1, 'behind the first token';
        ok !$r->complete;
        is scalar(error_events($r)), 1;
        like $r->body, qr/deadline/;
        is $gw->moved, 'a successful=1', 'which is not the provider\'s fault';
        is $gw->logged->{llm_outcome}, 'truncated';
        $first->behave('ok');
        ok $gw->ask("/pair_deadline-$buffering$CHAT", $STREAM)->complete;
        is $gw->moved, 'a successful=1';
    }
};

# commit

my $EARLY = { tokens => 5, pace => 0.03 };

my @INSIDE = (
    { name => 'an end',   step => { %$EARLY, close => '3 tokens' } },
    { name => 'a reset',  step => { %$EARLY, reset => '3 tokens' } },
    { name => 'silence',  step => { %$EARLY, stall => '3 tokens' } },
    { name => 'an error', step => { %$EARLY, error => 3 } },
    { name => 'an end without a finish', step => { %$EARLY, finish => 0 } },
    { name => 'an end of a JSON answer', plain => 1,
      step => { body => 'x' x 3000, close => '1000 body bytes' } },
    { name => 'silence in a JSON answer', plain => 1,
      step => { body => 'x' x 3000, stall => '1000 body bytes' } },
);

for my $case (@INSIDE) {
    for my $commit (qw(time size complete header first)) {
        next if $case->{plain} && $commit ne 'complete';
        my $saved = $commit =~ /^(?:time|size|complete)$/;
        subtest "$case->{name} within \"$COMMIT{$commit}\" is "
            . ($saved ? 'saved' : 'too late') => sub {
            for my $buffering (qw(off on)) {
                inside($case, "pair_$commit-$buffering", $saved);
            }
        };
    }
}

sub inside {
    my ($case, $where, $saved) = @_;

    $first->behave($case->{step});
    my $r = $gw->ask("/$where$CHAT", $case->{plain} ? { model => 'm' }
                                                     : $STREAM);
    if ($saved) {
        is $r->header('x-llm-provider'), 'b', $where;
        ok $r->complete;
        unlike $r->body, qr{(?<![a-z])a-\d}, 'nothing of the other is left';
        is $gw->moved, 'a failed=1, b successful=1';
        is $gw->logged->{llm_outcome}, 'failover';
    } else {
        is $r->header('x-llm-provider'), 'a', $where;
        is scalar(error_events($r)), 1;
        is $gw->moved, 'a successful=1 stream_errors=1';
        is $gw->logged->{llm_outcome}, 'truncated';
        $first->behave('ok');
        $gw->ask("/$where$CHAT");
        $gw->moved;
    }
}

subtest 'a window ends, and what breaks then is told' => sub {
    my %long = (
        time => { tokens => 30, pace => 0.04, close => '25 tokens' },
        size => { tokens => 100, text => [ ('x' x 1000) x 10 ],
                  pace => 0.03, close => '8 tokens' },
        complete => { text => [ ('x' x 30000) x 20 ], pace => 0.01,
                  close => '19 tokens' },
    );
    for my $commit (sort keys %long) {
        for my $buffering (qw(off on)) {
            $first->behave($long{$commit});
            my $r = $gw->ask("/pair_$commit-$buffering$CHAT", $STREAM);
            is $r->header('x-llm-provider'), 'a', $commit;
            is scalar(error_events($r)), 1;
            is $gw->moved, 'a successful=1 stream_errors=1';
            $first->behave('ok');
            $gw->ask("/pair_$commit-$buffering$CHAT");
            $gw->moved;
        }
    }
};

subtest 'a window of time ends without help from the provider' => sub {
    for my $buffering (qw(off on)) {
        $first->behave({ tokens => 2, pace => 0.05, stall => '2 tokens' });
        my $http = $gw->call("/pair_time-$buffering$CHAT", $STREAM);
        my $r = $http->finish;
        ok $r->status;
        $gw->moved;
    }
    $hasty->behave({ tokens => 2, pace => 1.2 });
    pass;
};

subtest 'every way to commit passes a good answer on unchanged' => sub {
    for my $step ({}, { pace => 0.05 }, { pings => 2, first => 0.1 },
        { tokens => 2000 }, { pieces => 11 }, { text => [] },
        { framing => 'close', done => 0 })
    {
        $first->behave($step);
        my $direct = normal($first->client->post($CHAT, $STREAM)->body);
        for my $commit (sort keys %COMMIT) {
            for my $buffering (qw(off on)) {
                my $r = $gw->ask("/alone_$commit-$buffering$CHAT", $STREAM);
                ok normal($r->body) eq $direct, "$commit, $buffering";
                ok $r->complete;
                is $gw->moved, 'a successful=1';
            }
        }
    }
    for my $step ({ body => 'x' x 3000 }, { body => 'x' x 1e6 },
        { body => '' }, 204, { body => 'x' x 3000, framing => 'chunked' },
        { body => 'x' x 3000, framing => 'close' })
    {
        $first->behave($step);
        my $direct = $first->client->post($CHAT, { model => 'm' })->body;
        for my $buffering (qw(off on)) {
            my $r = $gw->ask("/alone_complete-$buffering$CHAT");
            ok $r->body eq $direct;
            ok $r->complete;
            is $gw->moved, 'a successful=1';
        }
    }
};

# the caller

my @LEAVING = (
    { name => 'before the header', step => 'hang', moved => 'neutral=1' },
    { name => 'before the first token', moved => 'neutral=1',
      step => { pings => 3, first => 5 }, idle => 1 },
    { name => 'while keep-alives come', step => { events => $KEEP_ALIVES },
      moved => 'neutral=1' },
    { name => 'in the stream', step => { tokens => 500, pace => 0.02 },
      wait => qr/token2/, moved => 'successful=1' },
    { name => 'in a stream that is silent', wait => qr/token2/,
      step => { tokens => 5, stall => '2 tokens' }, moved => 'successful=1' },
    { name => 'within a window', in => 'pair_complete', moved => 'neutral=1',
      step => { tokens => 500, pace => 0.02 }, sent => 1000 },
    { name => 'behind the finish', moved => 'successful=1',
      wait => qr/"finish_reason":"stop"/,
      step => { done => 0, framing => 'close', stall => 'end' } },
);

for my $case (@LEAVING) {
    for my $how (qw(close reset)) {
        subtest "a caller that goes ($how) $case->{name} ends it all" => sub {
            leaving($case, $how, $_) for qw(off on);
        };
    }
}

sub leaving {
    my ($case, $how, $buffering) = @_;

    my $in = $case->{in} // 'pair_first';
    $first->drop->behave($case->{step});
    $_->forget for $first, $next;
    my $http = $gw->call("/$in-$buffering$CHAT", $STREAM);
    ok $first->wait_requests(1), "buffering $buffering";
    ok $http->read_until($case->{wait}) if $case->{wait};
    ok $first->wait_for(sub { +($_[0]->requests)[0]{sent} > $case->{sent} })
        if $case->{sent};

    my $start = time;
    $http->$how;
    ok $first->wait_for(sub {
        my $stats = $_[0]->stats;
        return $stats->{open} == $stats->{idle};
    }), 'no more is generated';
    cmp_ok time - $start, '<', 1, 'from then on';
    is $gw->logged->{llm_outcome}, 'aborted';
    is $gw->moved, "a $case->{moved}", 'it is nobody\'s failure';
    is $next->stats->{requests}, 0, 'nor a call for the next';
}

subtest 'tokens arrive one by one, as they come' => sub {
    for my $mode (grep { !$_->{h2} } @MODES) {
        $gw->provider($mode->{from})->behave({ tokens => 10, pace => 0.05 });
        my $r = ask($mode, $CHAT);
        my @times = map { $_->[0] } grep { $_->[1] =~ /token\d/ }
            @{ $r->chunks };
        is @times, 10, "$mode->{name}: each for itself";
        my @gaps = sort { $a <=> $b }
            map { $times[$_] - $times[ $_ - 1 ] } 1 .. $#times;
        cmp_ok abs($gaps[ @gaps / 2 ] - 0.05), '<', 0.01, 'and in its time';
        is $gw->moved, "$mode->{from} successful=1";
    }
};

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_"
    for qw(a s hasty b);

done_testing;
