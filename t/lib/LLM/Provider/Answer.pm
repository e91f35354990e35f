package LLM::Provider::Answer;

=head1 NAME

LLM::Provider::Answer - one step of a provider's behaviour as bytes and pauses

=head1 SYNOPSIS

    my $step   = LLM::Provider::Answer->step({ status => 500, times => 2 });
    my $answer = LLM::Provider::Answer->new($step, $request, $id);

    $answer->parts;     # ([head => BYTES], [wait => 0.1], [token => BYTES])
    $answer->end;       # keep, close, reset or stall

The members of a step are described in LLM::Provider.

=cut

use strict;
use warnings;

use Carp;
use List::Util qw(pairkeys);

use LLM::Provider::Dialect;

our @CARP_NOT = ('LLM::Provider');    # mistakes are the test's

my %SHORT = (
    ok    => {},
    reset => { reset => 'start' },
    close => { close => 'start' },
    hang  => { stall => 'start' },
);

my %MEMBER = map { $_ => 1 } qw(
    status reason headers header_lines head interim content_type body framing
    connection form stream tokens text kind events input_tokens output_tokens
    usage finish done pings malformed malformed_frame error code message type
    delay first pace dribble pieces gap early unread read_rate close reset
    stall close_notify hang_up stale raw times
);

my %REASON = (
    100 => 'Continue',              103 => 'Early Hints',
    200 => 'OK',                    204 => 'No Content',
    304 => 'Not Modified',          400 => 'Bad Request',
    401 => 'Unauthorized',          402 => 'Payment Required',
    403 => 'Forbidden',             404 => 'Not Found',
    408 => 'Request Timeout',       413 => 'Content Too Large',
    429 => 'Too Many Requests',     500 => 'Internal Server Error',
    502 => 'Bad Gateway',           503 => 'Service Unavailable',
    504 => 'Gateway Timeout',       529 => 'Overloaded',
);

my $MALFORMED = qq(data: {"choices":[{"index":0,"delta":{"content":"bro\n\n);

my $PLACE = qr/^(?: start | header | end
    | (?<count>\d+) \s+ (?<unit> tokens? | bytes? | body\ bytes? ) )$/x;

sub step {
    my ($class, $step) = @_;

    if (!ref $step) {
        $step = $SHORT{$step}
            // ($step =~ /^[1-9]\d\d$/ ? { status => $step }
                                       : croak qq(no step "$step"));
    }

    $MEMBER{$_} or croak qq(a step has no "$_") for keys %$step;
    for my $fault (grep { defined $step->{$_} } qw(close reset stall)) {
        $step->{$fault} =~ $PLACE
            or croak qq(no place "$step->{$fault}" to $fault);
    }
    return $step;
}

sub new {
    my ($class, $step, $request, $id) = @_;

    my $self = bless { step => $step, request => $request }, $class;
    $self->{dialect} = $self->_dialect($id);

    my @parts = $step->{raw} ? _script(head => $step->{raw}) : $self->_answer;
    $self->{end} //= $step->{raw} || $self->_closes ? 'close' : 'keep';

    @parts = $self->_break(@parts);
    @parts = _cut($step->{pieces}, $step->{gap}, @parts) if $step->{pieces};
    @parts = _dribble($step->{dribble}, @parts)          if $step->{dribble};
    unshift @parts, [ wait => $step->{delay} ]           if $step->{delay};

    $self->{parts} = \@parts;
    return $self;
}

sub parts { @{ $_[0]{parts} } }
sub end   { $_[0]{end} }

sub _dialect {
    my ($self, $id) = @_;

    my $step    = $self->{step};
    my $request = $self->{request};
    my $tokens  = $step->{text}
        // [ map { "token$_ " } 1 .. $step->{tokens} // 3 ];

    return LLM::Provider::Dialect->new(
        $step->{form} // LLM::Provider::Dialect->form_of($request->{uri}),
        {
            id     => $id,
            model  => _member($request, 'model') // 'default-model',
            tokens => $tokens,
            kind   => $step->{kind}          // 'text',
            input  => $step->{input_tokens}  // 7,
            output => $step->{output_tokens} // scalar @$tokens,
            usage  => $step->{usage}
                // _asks($request, qr/"include_usage"\s*:\s*true/),
        },
    );
}

# a string member of the request's body; good enough for what tests send

sub _member {
    my ($request, $name) = @_;

    return unless $request->{body} =~ /"$name"\s*:\s*("(?:[^"\\]|\\.)*")/;
    return JSON::PP->new->utf8->allow_nonref->decode($1);
}

sub _asks {
    my ($request, $what) = @_;

    return $request->{body} =~ $what ? 1 : 0;
}

sub _answer {
    my $self = shift;

    my $step = $self->{step};
    my ($type, @body) = $self->_body;

    $self->{framing} = $self->_framing($type);
    my $length = 0;
    $length += length $_->[1] for grep { $_->[0] ne 'wait' } @body;

    my @interim = map { [ interim => /\D/ ? $_ : _status_line($_) . "\r\n" ] }
        @{ $step->{interim} // [] };
    my $head = $step->{head} // $self->_head($type, $length);

    @body = () if $self->_is_bodiless;
    return @interim, [ head => $head ], $self->_frame(@body);
}

sub _body {
    my $self = shift;

    my $step   = $self->{step};
    my $status = $step->{status} // 200;

    if (defined $step->{body}) {
        my $body = $step->{body};
        return ref $body
            ? ('application/json',
                [ body => $self->{dialect}->json($body) ])
            : ('text/plain', [ body => $body ]);
    }

    if ($step->{events}) {
        return 'text/event-stream', _script(token => $step->{events});
    }

    if ($status >= 400) {
        my $error = $self->{dialect}->error($status, $step);
        return 'application/json',
            [ body => $self->{dialect}->json($error) ];
    }

    return 'text/event-stream', $self->_stream
        if $step->{stream}
        // _asks($self->{request}, qr/"stream"\s*:\s*true/);

    return 'application/json',
        [ body => $self->{dialect}->json($self->{dialect}->whole) ];
}

sub _stream {
    my $self = shift;

    my $step    = $self->{step};
    my $dialect = $self->{dialect};
    my $tokens  = @{ $dialect->{tokens} };

    my @parts = map { [ body => $_ ] } $dialect->opening,
        map { $dialect->ping } 1 .. $step->{pings} // 0;
    push @parts, [ wait => $step->{first} ] if $step->{first};

    for my $n (0 .. $tokens) {
        push @parts, [ body => $step->{malformed_frame} // $MALFORMED ]
            if defined $step->{malformed} && $step->{malformed} == $n;

        return @parts, [ body => $dialect->error_frame($step) ]
            if defined $step->{error} && $step->{error} == $n;

        last if $n == $tokens;
        push @parts, [ wait => $step->{pace} ] if $n && $step->{pace};
        push @parts, [ token => $dialect->token($n) ];
    }

    return @parts unless $step->{finish} // 1;
    push @parts, map { [ body => $_ ] } $dialect->closing;
    push @parts, map { [ body => $_ ] } $dialect->end if $step->{done} // 1;
    return @parts;
}

sub _framing {
    my ($self, $type) = @_;

    my $framing = $self->{step}{framing}
        // ($type eq 'text/event-stream' ? 'chunked' : 'length');
    return $framing eq 'chunked' && $self->{request}{version} eq '1.0'
        ? 'close'
        : $framing;
}

sub _frame {
    my ($self, @body) = @_;

    return @body if $self->{framing} ne 'chunked' || !@body;

    my @chunks = map {
        my ($kind, $what) = @$_;
        [ $kind => $kind eq 'wait'
            ? $what : sprintf "%x\r\n%s\r\n", length $what, $what ];
    } grep { $_->[0] eq 'wait' || length $_->[1] } @body;
    return @chunks, [ body => "0\r\n\r\n" ];
}

sub _head {
    my ($self, $type, $length) = @_;

    my $step  = $self->{step};
    my @lines = (
        'content-type' => $step->{content_type} // $type,
        $self->_is_bodiless            ? ()
        : $self->{framing} eq 'length' ? ('content-length' => $length)
        : $self->{framing} eq 'chunked' ? ('transfer-encoding' => 'chunked')
        :                                 (),
        $self->_closes ? (connection => 'close') : (),
        'x-request-id' => "req_$self->{dialect}{id}",
    );

    my @own = ref $step->{headers} eq 'HASH'
        ? map { $_ => $step->{headers}{$_} } sort keys %{ $step->{headers} }
        : @{ $step->{headers} // [] };
    my %is_own = map { lc $_ => 1 } pairkeys @own;

    my $head = _status_line($step->{status} // 200, $step->{reason});
    while (my ($name, $value) = splice @lines, 0, 2) {
        $head .= "$name: $value\r\n" unless $is_own{$name};
    }
    while (my ($name, $value) = splice @own, 0, 2) {
        $head .= "$name: $value\r\n" if defined $value;
    }
    $head .= "$_\r\n" for @{ $step->{header_lines} // [] };
    return "$head\r\n";
}

sub _status_line {
    my ($status, $reason) = @_;

    $reason //= $REASON{$status} // 'Whatever';
    return "HTTP/1.1 $status $reason\r\n";
}

sub _is_bodiless {
    my $self = shift;

    return $self->{request}{method} eq 'HEAD'
        || ($self->{step}{status} // 200) =~ /^(?:204|304)$/;
}

sub _closes {
    my $self = shift;

    my $request    = $self->{request};
    my $connection = join ',', @{ $request->{headers}{connection} // [] };
    return ($self->{framing} // '') eq 'close'
        || ($self->{step}{connection} // '') eq 'close'
        || $connection =~ /\bclose\b/i
        || $request->{version} eq '1.0' && $connection !~ /keep-alive/i;
}

# bytes, and references to numbers: pauses

sub _script {
    my ($kind, $items) = @_;

    return map { ref $_ ? [ wait => $$_ ] : [ $kind => $_ ] }
        ref $items ? @$items : $items;
}

# ends the answer where the step says that it breaks

sub _break {
    my ($self, @parts) = @_;

    my $step = $self->{step};
    my ($fault) = grep { defined $step->{$_} } qw(reset close stall);
    return @parts unless $fault;

    $self->{end} = $fault;
    return _until($step->{$fault}, @parts);
}

sub _until {
    my ($place, @parts) = @_;

    return @parts if $place eq 'end';

    my ($head) = grep { $parts[$_][0] eq 'head' } 0 .. $#parts;
    return @parts[ 0 .. $head ] if $place eq 'header';
    return                      if $place eq 'start';

    $place =~ $PLACE;
    my ($count, $unit) = @+{qw(count unit)};
    return _bytes($count, @parts) if $unit =~ /^bytes?$/;
    return @parts[ 0 .. $head ], _bytes($count, @parts[ $head+1 .. $#parts ])
        if $unit =~ /^body/;

    my @tokens = grep { $parts[$_][0] eq 'token' } 0 .. $#parts;
    return @parts[ 0 .. $head ] unless @tokens;
    return @parts if $count > @tokens;
    return @parts[ 0 .. $tokens[ $count - 1 ] ] if $count;

    my $before = $tokens[0];
    $before-- if $parts[ $before - 1 ][0] eq 'wait';
    return @parts[ 0 .. $before - 1 ];
}

sub _bytes {
    my ($count, @parts) = @_;

    my @kept;
    for my $part (@parts) {
        my ($kind, $what) = @$part;
        last if $count <= 0;
        if ($kind ne 'wait') {
            $what = substr $what, 0, $count;
            $count -= length $what;
        }
        push @kept, [ $kind => $what ];
    }
    return @kept;
}

sub _cut {
    my ($size, $gap, @parts) = @_;

    return map {
        my ($kind, $what) = @$_;
        $kind eq 'wait'
            ? $_
            : map { ([ wait => $gap // 0.001 ], [ $kind => $_ ]) }
                unpack "(a$size)*", $what;
    } @parts;
}

sub _dribble {
    my ($gap, @parts) = @_;

    return map {
        $_->[0] =~ /^(?:head|interim)$/ ? _cut(1, $gap, $_) : $_
    } @parts;
}

1;
