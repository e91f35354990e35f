package LLM::Chaos;

=head1 NAME

LLM::Chaos - configurations, callers and providers, made up by chance

=head1 SYNOPSIS

    my $chaos = LLM::Chaos->new($seed);

    $chaos->setting;        # a configuration, for LLM::Gateway
    $chaos->call(17);       # what the caller number 17 does
    $chaos->call('a-1');    # a call that "a" alone is asked, and answers well
    $chaos->order($random, 'a', 'b');       # what an operator sends
    $chaos->step('a', 17, 1);   # what the provider "a" answers to it when
                                # it is asked for the first time

Everything follows from the seed and these words, so one conversation can be
had again without the others.

A call is a hash: method, uri, form, how (for LLM::HTTP's request), whether it
streams, and how it ends: C<abort> (time, bytes, or part of the request sent),
C<reset>, C<slow>, C<h2>, C<keep> (the connection, for the next one).

A provider's answer tells who made it, in a header and in each token:

    x-chaos: 17.a.1.3.length    call, provider, how often it was asked,
                                tokens that the whole answer has, framing
    ~17.a.1.2~                  the second of these tokens

=cut

use strict;
use warnings;

use JSON::PP ();

use LLM::Random;

use constant {
    MOOD => 20,             # calls during which a provider is in one mood
    HEADER => 'x-chaos',
    KEY => 'key-of-the-caller',
};
use constant API => 'location /llm/ { llm_api; access_log off; }';
use constant STRATEGIES => qw(priority round_robin weighted least_latency
    cost least_conn);

my $JSON = JSON::PP->new->utf8->canonical;

my %PATH = (
    chat        => '/v1/chat/completions',
    completions => '/v1/completions',
    responses   => '/v1/responses',
    messages    => '/v1/messages',
    embeddings  => '/v1/embeddings',
);

sub new {
    my ($class, $seed) = @_;

    return bless { seed => $seed }, $class;
}

sub seed { $_[0]{seed} }

sub random {
    my ($self, @words) = @_;

    return LLM::Random->new($self->{seed}, @words);
}

# the configuration

sub setting {
    my $self = shift;

    my $r = $self->random('setting');
    my @names = (qw(a b c d))[ 0 .. $r->between(1, 3) ];

    return {
        names   => \@names,
        workers => $r->weighted(1 => 3, 2 => 4, 4 => 2),
        providers => [ map { $_ => $self->provider($_) } @names ],
        routes  => {},
        main    => 'worker_shutdown_timeout 5s;',
        server  => API,
        events  => $r->pick('', 'multi_accept on;', 'accept_mutex on;'),
        http    => join("\n", $self->_http($r),
            $self->route('llm', $r->pick(STRATEGIES), @names),
            map { "upstream only-$_ { llm_use $_; }" } @names),
        locations => {
            '/' => $self->_location($r),
            map { ("/only-$_/" => "llm_pass only-$_;") } @names,
        },
    };
}

sub provider {
    my ($self, $name, $change) = @_;

    my $r = $self->random('provider', $name, $change // 0);

    return join ' ', map { length ? "$_;" : () }
        $self->_circuit($r),
        'timeout ' . join(' ',
            'connect=' . $r->between(300, 600) . 'ms',
            'header=' . $r->between(200, 600) . 'ms',
            'answer=' . $r->between(200, 800) . 'ms',
            'first_token='
                . $r->pick('off', $r->between(100, 500) . 'ms'),
            'idle=' . $r->between(150, 500) . 'ms'),
        $r->weighted('' => 5, 'model *' => 1, "model m up-$name" => 1,
            "model * up-$name" => 2, 'model m' => 1),
        $r->weighted('' => 3, 'limit concurrency=' . $r->between(1, 4) => 1,
            'limit rpm=' . $r->between(50, 500) => 1,
            'limit tpm=' . $r->between(10_000, 1_000_000) => 1),
        'price ' . $r->between(0, 3) . ' ' . $r->between(0, 9),
        $r->weighted('' => 5, 'classify 404 failure' => 1,
            'classify 520-599 neutral' => 1),
        $r->weighted('' => 7, 'api_key client' => 1);
}

sub has_own_key { $_[0]->provider($_[1]) !~ /api_key client/ }

sub _circuit {
    my ($self, $r) = @_;

    return 'circuit off' if $r->chance(0.05);

    my $open = $r->between(50, 400);
    return join ' ', 'circuit',
        'failure_threshold=' . $r->between(1, 5),
        'success_threshold=' . $r->between(1, 3),
        "open=${open}ms", 'open_max=' . $open * $r->between(1, 4) . 'ms',
        'half_open_max_calls=' . $r->between(1, 4),
        'half_open_timeout=' . $r->between(50, 800) . 'ms',
        $r->pick('', 'failure_rate=50% window=1s min_requests=5'),
        $r->weighted('' => 3, 'slow_call=100ms' => 1),
        $r->weighted('' => 3, 'slow_start=500ms' => 1),
        $r->weighted('' => 3, 'stream_errors=off' => 1);
}

sub route {
    my ($self, $name, $strategy, @names) = @_;

    my $r = $self->random('route', $name);

    my @use = map { "llm_use $_ weight=" . $r->between(1, 5) } @names;
    $use[-1] .= ' backup' if $r->chance(0.2);

    return join ' ', "upstream $name {", map({ length ? "$_;" : () }
        @use,
        "llm_strategy $strategy",
        'llm_commit ' . $r->pick(qw(header first_token first_token complete
            window=50ms window=300ms window=1k window=64k)),
        $r->weighted('' => 1, join(' ', 'llm_retry same='
            . $r->between(0, 2), 'rounds=' . $r->between(1, 3),
            'base=10ms max=100ms budget=' . $r->between(0, 100) . '%') => 1),
        'llm_deadline ' . $r->between(300, 2500) . 'ms',
        $r->weighted('' => 2, 'llm_wait ' . $r->between(50, 800)
            . 'ms queue=' . $r->pick(1, 3, 1000) => 1),
        $r->weighted('' => 3, 'llm_usage inject' => 1),
        $r->weighted('' => 1, 'keepalive 1' => 1, 'keepalive 16' => 3),
    ), "}\n";
}

sub _http {
    my ($self, $r) = @_;

    return join ' ', map { length ? "$_;" : () }
        $r->weighted('' => 3, 'reset_timedout_connection on' => 1),
        $r->weighted('' => 3, 'keepalive_requests 3' => 1),
        $r->weighted('' => 3, 'gzip on; gzip_types *' => 1);
}

sub _location {
    my ($self, $r) = @_;

    return join ' ', map { length ? "$_;" : () }
        'client_max_body_size ' . $r->pick('300k', '10m'),
        $r->weighted('' => 2, 'client_body_buffer_size 1k' => 1),
        $r->weighted('' => 5, 'proxy_buffering on' => 1),
        $r->weighted('' => 4, 'proxy_buffer_size 1k' => 1,
            'proxy_buffer_size 16k; proxy_buffers 4 16k' => 1),
        $r->weighted('' => 6, 'proxy_next_upstream_tries 2' => 1),
        $r->weighted('' => 6, 'proxy_ignore_client_abort on' => 1),
        $r->weighted('' => 6, 'proxy_request_buffering off' => 1),
        $r->weighted('' => 6, 'proxy_http_version 1.0' => 1),
        $r->weighted('' => 6, 'proxy_socket_keepalive on' => 1);
}

# callers

sub call {
    my ($self, $id) = @_;

    return $self->good_call($id) if $id =~ /-/;

    my $r = $self->random('call', $id);
    my $form = $r->weighted(chat => 6, completions => 2, responses => 3,
        messages => 4, embeddings => 1);
    my $stream = $form ne 'embeddings' && $r->chance(0.6);

    my %call = (
        id     => $id,
        form   => $form,
        uri    => $PATH{$form},
        method => 'POST',
        stream => $stream,
        model  => $r->weighted(m => 8, 'other-model' => 1, "\x{e9}\"\\" => 1),
        how    => { headers => $self->_headers($id) },
    );
    $call{how}{body} = $self->_body($r, \%call);

    $self->_odd($r, \%call) if $r->chance(0.15);
    $self->_manner($r, \%call);
    $self->_end($r, \%call);
    return \%call;
}

# a call that this provider answers well: "a-1"

sub good_call {
    my ($self, $id) = @_;

    my ($name) = $id =~ /(.*)-/;
    return {
        id => $id, form => 'chat', uri => "/only-$name$PATH{chat}",
        method => 'POST',
        stream => 0, model => 'm', how => {
            headers => $self->_headers($id),
            body => '{"model":"m","messages":[]}',
        },
    };
}

sub _headers {
    my ($self, $id) = @_;

    return [
        HEADER, "$self->{seed}:$id",
        'content-type'  => 'application/json',
        'authorization' => 'Bearer ' . KEY,
    ];
}

sub _body {
    my ($self, $r, $call) = @_;

    my $size = $r->weighted(0 => 6, 10_000 => 2, 100_000 => 1, 400_000 => 1);
    my $text = 'x' x int $r->seconds(1, $size + 1);

    my @members = (
        [ model => $call->{model} ],
        [ messages => [ { role => 'user', content => "say $text" } ] ],
        $call->{stream}   ? [ stream => JSON::PP::true ]     : (),
        $r->chance(0.3)   ? [ max_tokens => $r->below(99) ]  : (),
        $r->chance(0.2)   ? [ stream_options =>
            { include_usage => JSON::PP::true } ] : (),
    );
    @members = reverse @members if $r->chance(0.5);

    return '{' . join(',', map { $self->_member(@$_) } @members) . '}';
}

sub _member {
    my ($self, $name, $value) = @_;

    return "\"$name\":" . $JSON->allow_nonref->encode($value);
}

# what is no such call

sub _odd {
    my ($self, $r, $call) = @_;

    $call->{odd} = 1;
    my $how = $call->{how};
    my $what = $r->pick(qw(get head put other cut model empty garbage deep
        encoding length));

    if ($what =~ /^(?:get|head)$/) {
        $call->{method} = uc $what;
        $call->{uri} = '/v1/models';
        $call->{form} = 'models';
        $call->{stream} = 0;
        delete $how->{body};
    } elsif ($what eq 'put') {
        $call->{method} = $r->pick(qw(PUT DELETE OPTIONS PATCH));
    } elsif ($what eq 'other') {
        $call->{uri} = $r->pick('/v1/files', '/v1/audio/speech',
            '/v1/messages/count_tokens', '/v1/chat/completions/',
            '/v1/chat/completions?x=1', '/v1//messages');
        $call->{is_other} = 1;
    } elsif ($what eq 'cut') {
        substr $how->{body}, $r->below(length $how->{body}), 1e6, '';
    } elsif ($what eq 'model') {
        $how->{body} = $r->pick('{"model":1}', '{"model":""}', '{}', '[]',
            '{"model":"m","model":"n"}', '"m"', '{"model":"' . 'm' x 300
            . '"}');
    } elsif ($what eq 'empty') {
        $how->{body} = '';
    } elsif ($what eq 'garbage') {
        $how->{body} = join '', map { chr $r->below(256) } 1 .. 200;
    } elsif ($what eq 'deep') {
        $how->{body} = '{"model":"m","a":' . '[' x 5000 . ']' x 5000 . '}';
    } elsif ($what eq 'encoding') {
        push @{ $how->{headers} }, 'content-encoding', 'gzip';
    } else {
        push @{ $how->{headers} }, 'content-length', 99_999_999;
        $call->{abort} = { after => 0.3 };
    }
}

# how it is sent and read

sub _manner {
    my ($self, $r, $call) = @_;

    my $how = $call->{how};
    my $what = $r->weighted(keep => 8, close => 4, h2 => 2, chunked => 2,
        dribble => 1, expect => 1, old => 1, slow => 1);

    if ($what eq 'chunked' && length($how->{body} // '')) {
        my $size = 1 + int length($how->{body}) / $r->between(1, 5);
        $how->{chunked} = [ map { ($_, \$r->seconds(0.0005, 0.02)) }
            unpack "(a$size)*", delete $how->{body} ];
    } elsif ($what eq 'dribble' && length($how->{body} // '') < 300) {
        $how->{dribble} = 0.0002;
    } elsif ($what eq 'expect') {
        push @{ $how->{headers} }, expect => '100-continue';
    } elsif ($what eq 'old') {
        $how->{version} = '1.0';
    } elsif ($what =~ /^(?:keep|h2|slow)$/) {
        $call->{$what} = 1;
        return;
    }
    $how->{close} = 1;
}

sub _end {
    my ($self, $r, $call) = @_;

    return if !$r->chance(0.12);

    $call->{reset} = $r->chance(0.5);
    $call->{abort} = $r->pick(
        { after => $r->seconds(0.001, 0.6) },
        { after => $r->seconds(0.001, 0.6), shut => 1 },
        { bytes => int $r->seconds(1, 3000) },
        { sent  => int $r->seconds(1, 2000) },
    );
}

# operators: the arguments of LLM::HTTP's request

sub order {
    my ($self, $r, @names) = @_;

    my $name = $r->weighted(map({ ($_ => 3) } @names), nobody => 1,
        '..' => 0.2, 'a/b' => 0.2);
    my $action = $r->pick(qw(open disable observe auto close reset));
    my %say = (action => $action);
    $say{ttl} = $r->pick('1s', 1) if $action =~ /^(?:open|disable|observe)$/;

    my $body = $JSON->encode(\%say);
    $body = $r->pick('', '[]', '"', '{"action":', '{"action":"explode"}',
        '{"action":"open","ttl":"31d"}', '{"action":"auto","ttl":"1s"}',
        '{"action":"open","ttl":-1}', '{"action":"open","ttl":1e99}',
        '{"action":{"action":"open"}}', '{"action":"open","more":1}',
        '{"action":"open","ttl":"' . '9' x 30 . 's"}', '[' x 3000,
        '{"action":"op\u0065n\\u0000"}', 'x' x 5000,
        join '', map { chr $r->below(256) } 1 .. 50) if $r->chance(0.4);

    return ($r->weighted(POST => 8, GET => 1, PUT => 0.5, HEAD => 0.5),
        "/llm/providers/$name", body => $body, close => 1,
        headers => $r->weighted([ 'content-type' => 'application/json' ], 8,
            [ 'content-type' => 'text/plain' ], 1,
            [ 'content-type' => 'application/json',
                origin => 'http://elsewhere.test' ], 1));
}

# providers

sub mood {
    my ($self, $name, $id) = @_;

    return 'well' if $id =~ /-/;
    return $self->random('mood', $name, int $id / MOOD)->weighted(
        well => 4, mixed => 4, ill => 2, odd => 3);
}

sub step {
    my ($self, $name, $id, $nth, $version) = @_;

    my $r = $self->random('step', $name, $id, $nth);
    my $mood = $self->mood($name, $id);

    my $count = $mood eq 'well' ? 2 : $r->weighted(3 => 4, 0 => 1, 1 => 2,
        12 => 1, 60 => 1);
    my $mark = "$id.$name.$nth";
    my $fill = $r->weighted('' => 12, 'y' x 2_000 => 2, 'y' x 40_000 => 1);
    my %step = (
        text => [ map { "~$mark.$_~$fill" } 1 .. $count ],
        message => "made-up error of ~$mark.0~",
        framing => $r->weighted(length => 1, chunked => 4, close => 1),
    );

    my $kind = $mood eq 'well' ? 'good'
        : $mood eq 'ill'   ? $r->pick(qw(error error reset stall))
        : $mood eq 'odd'   ? $r->pick(qw(raw odd odd stream good))
        : $r->weighted(good => 6, error => 2, reset => 1, stall => 1,
            stream => 3, odd => 1, raw => 0.5);
    my $make = "_answer_$kind";
    $self->$make($r, \%step, $count, $mark);

    $self->_pace($r, \%step) if $mood ne 'well';
    $step{framing} = 'close' if ($version // '') eq '1.0';
    $step{headers}{ +HEADER } = "$mark.$count.$step{framing}";
    return \%step;
}

sub _answer_good { }

sub _answer_error {
    my ($self, $r, $step) = @_;

    $step->{status} = $r->pick(400, 401, 402, 403, 404, 408, 409, 413, 422,
        429, 429, 429, 498, 500, 500, 501, 502, 503, 503, 504, 520, 529, 599);
    $step->{code} = $r->pick(undef, undef, undef, qw(insufficient_quota
        rate_limit_exceeded invalid_api_key context_length_exceeded
        model_not_found content_filter overloaded_error));

    my $hint = $r->pick(undef, undef, 0, 1, '0.2', 'soon', -1,
        'Thu, 01 Jan 1970 00:00:00 GMT', '0.05');
    $step->{headers}{'retry-after'} = $hint if defined $hint;
    $step->{headers}{'retry-after-ms'} = $r->below(500) if $r->chance(0.2);
}

sub _answer_reset {
    my ($self, $r, $step, $count) = @_;

    $step->{ $r->pick(qw(reset close)) } = $self->_place($r, $count);
}

sub _answer_stall {
    my ($self, $r, $step, $count) = @_;

    $step->{stall} = $self->_place($r, $count);
}

sub _place {
    my ($self, $r, $count) = @_;

    return $r->pick('start', 'header', 'end', $r->below($count + 2)
        . ' tokens', $r->below(400) . ' bytes',
        int($r->seconds(1, 4000)) . ' body bytes');
}

sub _answer_stream {
    my ($self, $r, $step, $count) = @_;

    my $what = $r->pick(qw(error malformed done finish kind usage pings));
    $step->{$what} = $what =~ /^(?:error|malformed)$/ ? $r->below($count + 1)
        : $what eq 'kind'  ? $r->pick(qw(tool reasoning refusal))
        : $what eq 'usage' ? 1
        : $what eq 'pings' ? $r->between(1, 50) : 0;
}

sub _answer_odd {
    my ($self, $r, $step) = @_;

    my $what = $r->pick(qw(stream type interim early unread stale hang_up
        status long encoding cookies connection empty));

    @$step{qw(form stream)} = ('chat', $r->below(2)) if $what eq 'stream';
    $step->{content_type} = $r->pick('text/event-stream; charset=utf-8',
        'TEXT/EVENT-STREAM', 'application/json', 'x') if $what eq 'type';
    $step->{interim}      = [ (103) x $r->between(1, 3) ]
        if $what eq 'interim';
    $step->{early}        = 1                  if $what eq 'early';
    $step->{unread}       = 1                  if $what eq 'unread';
    $step->{stale}        = $r->pick(qw(close reset)) if $what eq 'stale';
    $step->{hang_up}      = $r->seconds(0.0001, 0.1)  if $what eq 'hang_up';
    $step->{status}       = $r->pick(201, 204, 206, 301, 304, 418)
        if $what eq 'status';
    $step->{header_lines} = [ map { "x-long-$_: " . 'z' x 300 }
        1 .. $r->pick(2, 40) ]                 if $what eq 'long';
    $step->{headers}{'content-encoding'} = 'gzip' if $what eq 'encoding';
    $step->{headers}{'set-cookie'} = 'a=b'     if $what eq 'cookies';
    $step->{connection}   = 'close'            if $what eq 'connection';
    $step->{body}         = ''                 if $what eq 'empty';
}

# answers that are none, or lie about themselves

sub _answer_raw {
    my ($self, $r, $step, $count, $mark) = @_;

    my $tell = HEADER . ": $mark.?.raw\r\n";
    my $json = '{"choices":[{"index":0,"message":{"content":"'
        . "~$mark.1~" . '"}}]}';
    my $event = qq(data: {"choices":[{"index":0,"delta":{"content":")
        . qq(~$mark.1~"}}]}\n\n);
    my $stream = "HTTP/1.1 200 OK\r\n${tell}Content-Type: "
        . "text/event-stream\r\n";

    $step->{framing} = 'raw';
    $step->{raw} = $r->pick(
        "garbage\r\n\r\n",
        "\0" x 100,
        '',
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 999 What\r\n$tell\r\n",
        "HTTP/1.1 20 What\r\n$tell\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n" x 30,
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n"
            . "$tell\r\nhello",
        "HTTP/1.1 200 OK\r\n${tell}Content-Length: 99999\r\n\r\n$json",
        "HTTP/1.1 200 OK\r\n${tell}Content-Length: 5\r\n\r\n$json",
        "HTTP/1.1 200 OK\r\n${tell}Content-Length: -5\r\n\r\n$json",
        "HTTP/1.1 200 OK\r\n${tell}Content-Length: 5\r\n"
            . "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n${tell}Transfer-Encoding: chunked\r\n\r\n"
            . "zz\r\n$json",
        "HTTP/1.1 200 OK\r\n${tell}Transfer-Encoding: chunked\r\n\r\n"
            . "fffffffffffffffff\r\n$json",
        "HTTP/1.1 200 OK\r\n${tell}X: " . 'z' x 70_000 . "\r\n\r\n",
        "HTTP/1.1 204 No\r\n$tell\r\n$json",
        "HTTP/1.1 200 OK\r\n$tell\tfolded: x\r\n : y\r\n\r\n$json",
        "${stream}Transfer-Encoding: chunked\r\n\r\n"
            . sprintf("%x\r\n%s\r\n", length $event, $event) . "zz\r\n",
        "${stream}Content-Length: 20\r\n\r\n$event",
        "${stream}Content-Length: 9999\r\n\r\n$event",
        "${stream}\r\n" . ": ping\n\n" x 3000,
        "${stream}\r\n" . 'data: ' . 'x' x 300_000,
        "${stream}\r\n$event" . "data: {\n\n" x 20,
        "${stream}\r\n$event" . "event: error\n\n",
        [ "$stream\r\n", map { ($event, \0.01) } 1 .. 100 ],
        [ "$stream\r\n", map { (": ping\n\n", \0.02) } 1 .. 60 ],
    );
    $step->{stall} = 'end' if $r->chance(0.3);
}

sub _pace {
    my ($self, $r, $step) = @_;

    my $what = $r->weighted('' => 6, delay => 1, first => 1, pace => 1,
        pieces => 1, dribble => 1, both => 1);

    $step->{delay}   = $r->seconds(0.001, 0.5)  if $what eq 'delay';
    $step->{first}   = $r->seconds(0.001, 0.5)  if $what eq 'first';
    $step->{pace}    = $r->seconds(0.0005, 0.03) if $what eq 'pace';
    $step->{dribble} = 0.0002                   if $what eq 'dribble';
    $step->{pieces}  = $r->pick(17, 100, 1400)  if $what eq 'pieces';
    $step->{gap}     = 0.0002                   if $what eq 'pieces';
}

1;
