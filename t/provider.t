# The made-up provider says and does what a test has told it to.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Provider;
use LLM::TLS;
use Test::More;

my $CHAT   = '/v1/chat/completions';
my $ASK    = { model => 'gpt-4.1' };
my $STREAM = { model => 'gpt-4.1', stream => \1 };

my $p    = LLM::Provider->new(name => 'openai');
my $http = $p->client;

subtest 'a completion names the model that was asked for' => sub {
    my $r = $http->post($CHAT, $ASK);
    is $r->status, 200;
    is $r->header('content-type'), 'application/json';
    is $r->json->{object},         'chat.completion';
    is $r->json->{model},          'gpt-4.1';
    like $r->json->{id}, qr/openai/, 'and the provider';
    is_deeply $r->json->{usage},
        { prompt_tokens => 7, completion_tokens => 3, total_tokens => 10 };

    my ($request) = $p->requests;
    is $request->{method}, 'POST';
    is $request->{uri},    $CHAT;
    is $request->{body},   '{"model":"gpt-4.1"}';
    is_deeply $request->{headers}{'content-type'}, ['application/json'];
    like $request->{raw_head}, qr{^POST $CHAT HTTP/1\.1\r\n.*\r\n\z}s;
    is $request->{outcome}, 'answered';
};

my %DIALECT = (
    '/v1/chat/completions' => {
        object => 'chat.completion',
        deltas => sub { $_[0]{choices}[0]{delta}{content} },
        last   => '[DONE]',
        error  => sub { $_[0]{error}{code} },
    },
    '/v1/completions' => {
        object => 'text_completion',
        deltas => sub { $_[0]{choices}[0]{text} },
        last   => '[DONE]',
        error  => sub { $_[0]{error}{code} },
    },
    '/v1/responses' => {
        object => 'response',
        deltas => sub {
            $_[0]{type} eq 'response.output_text.delta' && $_[0]{delta};
        },
        last  => qr/"type":"response\.completed"/,
        error => sub { $_[0]{code} // $_[0]{error}{code} },
    },
    '/v1/messages' => {
        type   => 'message',
        deltas => sub {
            $_[0]{type} eq 'content_block_delta' && $_[0]{delta}{text};
        },
        last  => qr/"type":"message_stop"/,
        error => sub { $_[0]{error}{message} },
    },
);

for my $uri (sort keys %DIALECT) {
    my $dialect = $DIALECT{$uri};

    subtest "$uri is answered in its own dialect" => sub {
        $p->behave({ text => [ 'Hal', "l\x{f6}", '!' ] });
        my $whole = $http->post($uri, $ASK)->json;
        is $whole->{$_}, $dialect->{$_} for grep { $dialect->{$_} }
            qw(object type);

        my $r = $http->post($uri, $STREAM);
        is $r->header('content-type'), 'text/event-stream';
        my @data = map { $_->{data} } $r->events;
        like $data[-1], ref $dialect->{last}
            ? $dialect->{last} : qr/^\Q$dialect->{last}\E$/;
        is join('', grep { length } map { $dialect->{deltas}->($_) }
            decoded(@data)), "Hall\x{f6}!";

        $p->behave({ error => 1, code => 'odd', message => 'odd' });
        @data = decoded(map { $_->{data} } $http->post($uri, $STREAM)
            ->events);
        is $dialect->{error}->($data[-1]), 'odd', 'error event';

        $p->behave({ status => 429, code => 'odd', message => 'odd' });
        $r = $http->post($uri, $STREAM);
        is $r->status, 429;
        is $dialect->{error}->($r->json), 'odd', 'error answer';
    };
}

subtest 'tokens may be tool calls, reasoning and refusals' => sub {
    my %member = (
        tool      => 'tool_calls',
        reasoning => 'reasoning_content',
        refusal   => 'refusal',
    );
    for my $kind (sort keys %member) {
        $p->behave({ kind => $kind, tokens => 2 });
        my @data = decoded(map { $_->{data} } $http->post($CHAT, $STREAM)
            ->events);
        is scalar(grep { $_->{choices}[0]{delta}{ $member{$kind} } } @data),
            2, $kind;
        $http->post($_, $STREAM)->complete or fail "$kind $_"
            for keys %DIALECT;
    }
};

subtest 'usage is told in a stream that asks for it' => sub {
    $p->behave({ tokens => 4, input_tokens => 11 });
    my $plain = $http->post($CHAT, $STREAM);
    unlike $plain->body, qr/"usage"/;

    my @events = $http->post($CHAT,
        { %$STREAM, stream_options => { include_usage => \1 } })->events;
    is_deeply decoded($events[-2]{data})->{usage},
        { prompt_tokens => 11, completion_tokens => 4, total_tokens => 15 };
};

subtest 'steps follow each other, and the last repeats' => sub {
    $p->behave(503, { status => 429, times => 2 }, 'ok');
    is join(' ', map { $http->post($CHAT, $ASK)->status } 1 .. 5),
        '503 429 429 200 200';
    $p->behave(500);
    is $http->post($CHAT, $ASK)->status, 500, 'new steps hold at once';
};

subtest 'some URIs may have steps of their own' => sub {
    $p->behave(503, 'ok')->behave_at('/models', 401)
        ->behave_at(qr/embed.*s$/, 404);
    is $http->get('/v1/models')->status,     401;
    is $http->get('/v1/embeddings')->status, 404;
    is $http->post($CHAT, $ASK)->status,     503, 'none was used up';
    $p->behave('ok')->behave_at('/models', 'ok')
        ->behave_at(qr/embed.*s$/, 'ok');
    is $http->get('/v1/models')->json->{object}, 'list';
};

subtest 'any status, header and body' => sub {
    $p->behave({
        status  => 429,
        reason  => 'Slow Down',
        headers => [
            'retry-after' => 2, 'x-a' => 1, 'x-a' => 2,
            'content-type' => undef,
        ],
        body => { error => 'x' },
    });
    my $r = $http->post($CHAT, $ASK);
    is $r->reason, 'Slow Down';
    is $r->header('retry-after'), 2;
    is $r->header('x-a'),         '1, 2';
    is $r->header('content-type'), undef;
    is $r->body, '{"error":"x"}';

    $p->behave({ status => 529, body => 'x', content_type => 'text/html' });
    $r = $http->post($CHAT, $ASK);
    is $r->status, 529;
    is $r->header('content-type'), 'text/html';

    $p->behave({ headers => { 'x-pad' => 'a' x 100_000 } });
    is length $http->post($CHAT, $ASK)->header('x-pad'), 100_000;

    $p->behave({ status => 204 });
    ok $http->post($CHAT, $ASK)->complete, 'an answer without a body';
};

subtest 'an answer may be framed in each way' => sub {
    for my $framing (qw(length chunked close)) {
        $p->behave({ framing => $framing });
        for my $ask ($ASK, $STREAM) {
            my $r = $http->post($CHAT, $ask);
            ok $r->complete, $framing;
            like $r->body, qr/gpt-4\.1/;
        }
    }
    $p->behave('ok');
    my $r = $http->post($CHAT, $STREAM, version => '1.0');
    is $r->header('transfer-encoding'), undef, 'no chunks for HTTP/1.0';
    like $r->body, qr/\[DONE\]\n\n\z/;
};

subtest 'the header may be broken, preceded and slow' => sub {
    $p->behave({ header_lines => ['no colon', ': no name'] });
    like $http->post($CHAT, $ASK)->raw_head, qr/\r\nno colon\r\n: no name\r/;

    $p->behave({ head => "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n" });
    is $http->post($CHAT, $ASK)->reason, '';

    $p->behave({ interim => [ 100, "HTTP/1.1 103 Hint\r\nlink: x\r\n\r\n" ] });
    my $r = $http->post($CHAT, $ASK);
    is_deeply [ map { $_->{status} } @{ $r->interim } ], [ 100, 103 ];
    is $r->status, 200;

    $p->behave({ dribble => 0.0005 });
    $r = $http->post($CHAT, $ASK);
    cmp_ok $r->first, '>', 0.0005 * length($r->raw_head) * 0.9;
};

subtest 'what comes may be no HTTP at all' => sub {
    $p->behave({ raw => "SSH-2.0-OpenSSH\r\n\r\n" });
    is $http->post($CHAT, $ASK)->error, 'garbage';

    $p->behave({ raw => [ 'HTT', \0.05, 'P/1' ] });
    my $r = $http->post($CHAT, $ASK);
    is $r->raw,   'HTTP/1';
    is $r->error, 'closed';
    cmp_ok $r->time, '>', 0.045, 'with a pause in it';
};

subtest 'moments' => sub {
    $p->behave({ delay => 0.1 });
    cmp_ok $http->post($CHAT, $ASK)->first, '>', 0.095, 'delay';

    $p->behave({ first => 0.1 });
    my $r = $http->post($CHAT, $STREAM);
    cmp_ok moment_of($r, qr/token1/), '>', 0.095, 'first token';

    $p->behave({ tokens => 4, pace => 0.04 });
    $r = $http->post($CHAT, $STREAM);
    cmp_ok moment_of($r, qr/token4/), '>', 0.11, 'pace';

    $p->behave({ first => 60, pings => 2 });
    my $client = $p->client;
    $client->start(POST => $CHAT, json => $STREAM);
    ok $client->read_until(qr/^: .*^: /ms), 'nothing else is late';
    unlike $client->answer->body, qr/token/;
    $client->close;

    $p->behave({ events => [ "data: a\n\n", \0.05, "data: b\n\n" ] });
    $r = $http->post($CHAT, $STREAM);
    is $r->body, "data: a\n\ndata: b\n\n";
    cmp_ok $r->time, '>', 0.045, 'a stream of our own';

    $p->behave({ pieces => 10, gap => 0.0005, tokens => 1 });
    $r = $http->post($CHAT, $STREAM);
    like $r->body, qr/\[DONE\]/;
    cmp_ok scalar @{ $r->chunks }, '>', 1, 'pieces';
};

subtest 'an answer may break anywhere' => sub {
    my %error = (reset => 'reset', close => 'closed', stall => 'timeout');

    for my $fault (sort keys %error) {
        my $client = $p->client($fault eq 'stall' ? (timeout => 0.1) : ());
        my $ask = sub {
            my ($place, $question) = @_;

            $p->forget->behave({ $fault => $place });
            $client->start(POST => $CHAT, json => $question);
            ok $p->wait_outcome('stalled') if $fault eq 'stall';
            my $r = $client->finish;
            is $r->error, $error{$fault}, "$fault at $place";
            return $r;
        };

        is $ask->('start', $ASK)->raw, '';
        my $r = $ask->('header', $ASK);
        is $r->status, 200;
        is $r->body,   '';
        is length $ask->('30 bytes', $ASK)->raw, 30;
        is length $ask->('30 body bytes', $ASK)->body, 30;

        $r = $ask->('0 tokens', $STREAM);
        like $r->body, qr/"assistant"/;
        unlike $r->body, qr/token/;
        $r = $ask->('2 tokens', $STREAM);
        is scalar(() = $r->body =~ /token\d/g), 2;
        unlike $r->body, qr/DONE/;

        my $outcome = $fault eq 'stall' ? 'gone' : $error{$fault};
        ok $p->wait_outcome($outcome), "the outcome is $outcome";
    }

    $p->forget->behave('hang');
    my $client = $p->client;
    $client->start(POST => $CHAT, json => $ASK);
    ok $p->wait_outcome('stalled');
};

subtest 'a stream may be odd' => sub {
    $p->behave({ malformed => 1 });
    my @data = map { $_->{data} } $http->post($CHAT, $STREAM)->events;
    is scalar(grep { !/^\[/ && !eval { decoded($_) } } @data), 1,
        'one unreadable event';
    is $data[-1], '[DONE]';

    $p->behave({ error => 0 });
    my $r = $http->post($CHAT, $STREAM);
    ok $r->complete;
    unlike $r->body, qr/token|DONE/, 'an error before the first token';
    like $r->body, qr/"error"/;

    $p->behave({ done => 0 });
    $r = $http->post($CHAT, $STREAM);
    like $r->body, qr/"finish_reason":"stop"/;
    unlike $r->body, qr/DONE/, 'no [DONE]';

    $p->behave({ finish => 0 });
    $r = $http->post($CHAT, $STREAM);
    ok $r->complete;
    unlike $r->body, qr/"stop"|DONE/, 'no finish_reason either';
};

subtest 'a declared length may be longer than the body' => sub {
    $p->behave({ headers => { 'content-length' => 999 }, close => 'end' });
    my $r = $http->post($CHAT, $ASK);
    is $r->error, 'closed';
    like $r->body, qr/\}$/;
};

subtest 'requests of any framing are read' => sub {
    $p->forget->behave('ok');
    my $json = '{"model":"m"}';
    $http->request(POST => $CHAT,
        chunked => [ substr($json, 0, 5), \0.01, substr $json, 5 ]);
    $http->request(POST => $CHAT, body => $json, dribble => 0.0001);
    my $huge = '{"model":"m","x":"' . 'x' x 5_000_000 . '"}';
    is $http->request(POST => $CHAT, body => $huge)->json->{model}, 'm';

    my @bodies = map { $_->{body} } $p->requests;
    is $bodies[$_], $json for 0, 1;
    ok $bodies[2] eq $huge;
};

subtest 'an answer may come before the request is whole' => sub {
    my $client = $p->client(timeout => 5);
    $p->forget->behave({ status => 413, early => 1 });
    $client->start(POST => $CHAT, body => 'x' x 1000, only => 300);
    is $client->finish->status, 413;

    my $small = LLM::Provider->new(receive_buffer => 4096);
    $small->behave({ status => 413, unread => 1 });
    $client = $small->client;
    $client->start(POST => $CHAT, body => 'x' x 20_000_000);
    is $client->finish->status, 413, 'nor need it be read at all';
};

subtest 'a request may be read slowly' => sub {
    my $slow = LLM::Provider->new(receive_buffer => 4096);
    $slow->behave({ read_rate => 1_000_000 });
    my $r = $slow->client->request(POST => $CHAT, body => 'x' x 200_000);
    is $r->status, 200;
    cmp_ok $r->time, '>', 0.15;
};

subtest 'who goes away is seen' => sub {
    $p->forget->behave({ tokens => 1000, pace => 0.01 });
    my $client = $p->client;
    $client->start(POST => $CHAT, json => $STREAM);
    ok $client->read_until(qr/token2/);
    $client->close;
    ok $p->wait_outcome('gone');

    $p->forget;
    $client->start(POST => $CHAT, body => 'x' x 100, only => 150);
    ok $p->wait_for(sub { $_[0]->connections == 1 });
    $client->reset;
    ok $p->wait_for(sub { $_[0]->stats->{aborted} == 1 }),
        'also before the request was whole';
    is_deeply [ $p->requests ], [];
};

subtest 'connections are kept alive, or not' => sub {
    my $client = $p->client;
    $p->forget->behave('ok');
    $client->post($CHAT, $ASK) for 1 .. 3;
    is $p->connections, 1;
    is_deeply [ map { $_->{connection} } $p->requests ],
        [ (($p->requests)[0]{connection}) x 3 ];

    $p->behave({ connection => 'close' });
    is $client->post($CHAT, $ASK)->header('connection'), 'close';
    ok $client->is_closed;

    $p->behave({ hang_up => 0.02 });
    is $client->post($CHAT, $ASK)->header('connection'), undef;
    ok $client->is_closed(2), 'closed when idle';

    $p->forget->behave({ stale => 'close' }, { stale => 'reset' });
    for my $error (qw(closed reset)) {
        is $client->post($CHAT, $ASK)->status, 200;
        ok !$client->is_closed(0);
        is $client->post($CHAT, $ASK)->error, $error, 'stale';
    }
    is $p->stats->{stale}, 2;
    is scalar(() = $p->requests), 2, 'which is no request';

    my $strict = LLM::Provider->new(keepalive_requests => 2);
    my $other  = $strict->client;
    $other->post($CHAT, $ASK);
    ok !$other->is_closed(0);
    $other->post($CHAT, $ASK);
    ok $other->is_closed, 'closed after two requests';

    my $brief = LLM::Provider->new(keepalive_timeout => 0.02);
    $other = $brief->client;
    $other->post($CHAT, $ASK);
    ok $other->is_closed(2), 'closed after some time';

    $p->behave('ok');
    $client->post($CHAT, $ASK);
    is $p->stats->{idle}, $p->stats->{open};
    $p->drop('idle');
    ok $client->is_closed(2), 'dropped';
};

subtest 'it may refuse, and come back at the same port' => sub {
    my $url = $p->url;
    $p->refuse;
    ok !eval { $p->client->get('/'); 1 };
    like $@, qr/refused/;

    $p->deafen;
    ok !eval { $p->client(timeout => 0.1)->get('/'); 1 };
    like $@, qr/timeout|timed out/i, 'or not be there at all';

    $p->accept_again;
    is $p->url, $url;
    is $p->client->post($CHAT, $ASK)->status, 200;
};

subtest 'it may greet oddly' => sub {
    my %error = (
        close => qr/closed|reset/,
        reset => qr/reset/,
        hang  => qr/timeout/,
    );
    for my $how (sort keys %error) {
        $p->greet($how);
        my $client = $p->client($how eq 'hang' ? (timeout => 0.1) : ());
        like eval { $client->get('/')->error } // $@, $error{$how}, $how;
    }
    $p->greet('serve');
    is $p->client->get('/')->status, 200;
};

subtest 'many at once' => sub {
    $p->forget->behave({ stall => '1 token' });
    my @clients = map { $p->client } 1 .. 30;
    $_->start(POST => $CHAT, json => $STREAM) for @clients;
    ok $p->wait_requests(30);
    is scalar(grep { $_->read_until(qr/token1/) } @clients), 30;
    is $p->connections, 30;
};

subtest 'TLS, with a certificate for each name' => sub {
    my $tls = LLM::TLS->new('a.test', 'b.test', '127.0.0.1');
    my $p = LLM::Provider->new(tls => $tls);
    like $p->url, qr/^https:/;

    for my $name (qw(a.test b.test)) {
        my $client = $p->client(ca => $tls->ca, sni => $name);
        is $client->post($CHAT, $STREAM)->status, 200;
        is $client->post($CHAT, $STREAM)->status, 200;
        is $client->connections, 1;
    }
    is_deeply [ map { $_->{sni} } $p->requests ],
        [qw(a.test a.test b.test b.test)];

    ok !eval {
        $p->client(ca => LLM::TLS->new('a.test')->ca, sni => 'a.test')
            ->get('/');
    }, 'nobody else vouches for them';
    ok $p->wait_for(sub { $_[0]->stats->{handshake_failures} });

    $p->behave({ reset => '1 tokens' });
    my $client = $p->client(ca => $tls->ca, sni => 'a.test');
    is $client->post($CHAT, $STREAM)->error, 'reset';

    $tls->issue('old.test', expired => 1);
    my $old = LLM::Provider->new(
        tls => { cert => $tls->cert('old.test'), key => $tls->key('old.test') }
    );
    ok !eval { $old->client(ca => $tls->ca, sni => 'old.test')->get('/') };
    like $@, qr/certificate/, 'an expired certificate';
};

subtest 'IPv6 and unix sockets' => sub {
    my $unix = LLM::Provider->new(listen => 'unix');
    is $unix->client->get('/v1/models')->status, 200;

    my $v6 = eval { LLM::Provider->new(listen => '::1') }
        or plan skip_all => 'no IPv6 here';
    is $v6->client->get('/v1/models')->status, 200;
    like $v6->url, qr{^http://\[::1\]:\d+$};
};

subtest 'it ends when it should' => sub {
    my @others = map { LLM::Provider->new(name => $_) } qw(one two);
    my $client = $others[0]->client;
    is $client->get('/v1/models')->status, 200;
    $others[0]->stop;
    ok $client->is_closed(2);
    ok !eval { $others[0]->requests };
    is $others[1]->client->get('/v1/models')->status, 200;
};

subtest 'a mistake in a test is told' => sub {
    ok !eval { $p->behave({ statsu => 500 }) };
    like $@, qr/a step has no "statsu" at \Q$0\E/;
    ok !eval { $p->behave({ reset => 'somewhere' }) };
    ok !eval { $p->behave('nothing') };
};

done_testing;

sub decoded {
    my @data = map { JSON::PP->new->utf8->decode($_) }
        grep { $_ ne '[DONE]' } @_;
    return wantarray ? @data : $data[0];
}

# when the bytes that match had come

sub moment_of {
    my ($answer, $pattern) = @_;

    my $body = '';
    for my $chunk (@{ $answer->chunks }) {
        my ($moment, $bytes) = @$chunk;
        $body .= $bytes;
        return $moment if $body =~ $pattern;
    }
    return;
}
