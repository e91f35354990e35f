package LLM::HTTP;

=head1 NAME

LLM::HTTP - an HTTP client that shows every byte and moment

=head1 SYNOPSIS

    my $http = LLM::HTTP->new('http://127.0.0.1:8080');
    my $r = $http->post('/v1/chat/completions', { model => 'm' });
    is $r->status, 200;
    is $r->header('x-llm-provider'), 'openai';
    is $r->json->{model}, 'm';
    is_deeply [ map { $_->{data} } $r->events ], [ ..., '[DONE]' ];

The connection is kept alive and made anew where it has been closed.

=head1 A CONNECTION

=over

=item new(URL, ...)

    timeout => 30               seconds for connecting and for each answer
    ca => FILE, sni => NAME     for https; without ca nothing is verified

A unix socket is C<http://unix:PATH:>.

=item get(URI, ...), post(URI, DATA, ...), request(METHOD, URI, ...)

Return an answer, see below.  DATA is encoded as JSON.

    headers => { name => value } or [ name => value, ... ]
    json => DATA                a body, content-type: application/json
    body => BYTES
    chunked => [ BYTES, \0.1 ]  chunks, a reference is a pause
    dribble => 0.001            seconds between single bytes of the request
    only => BYTES               sends this much of the request, no more
    version => '1.0'
    close => 1                  connection: close

=item start(METHOD, URI, ...), finish

The two halves of request; between them others may be started.

=item read_until(PATTERN)

Reads on until what has come of the answer's body matches; true if it did.
C<answer> has what is there.

=item send(BYTES), close, reset, shut

Raw bytes; the ends of the connection; the end of sending.

=item is_closed([SECONDS])

Whether the other side closes within this time.

=item connections

How many were made.

=back

=head1 AN ANSWER

    status, reason, version, headers (lower-case name => [values]),
    header(NAME), raw_head, raw, body, json, events ({ event, data }),
    interim (the 1xx before it: [{ status, headers }]),
    complete    whether the framing says that it came to its end
    error       undef, or closed, reset, timeout, garbage
    time        seconds until the end, first: until the header
    chunks      [[ seconds, bytes of the body ], ...] as they came in

=head1 HTTP/2

    plan skip_all => 'no curl' unless LLM::HTTP->has_h2;
    my $r = LLM::HTTP->h2($url, json => { ... }, headers => { ... });

=cut

use strict;
use warnings;

use Carp;
use Errno qw(EAGAIN EWOULDBLOCK EINTR EINPROGRESS);
use File::Temp ();
use IO::Handle;
use IO::Socket::IP;
use IO::Socket::SSL qw($SSL_ERROR SSL_WANT_READ SSL_WANT_WRITE);
use IO::Socket::UNIX;
use JSON::PP ();
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time sleep);

use LLM::HTTP::Answer;

use constant PIECE => 65536;

my $JSON = JSON::PP->new->utf8->canonical;

sub new {
    my ($class, $url, %option) = @_;

    my ($scheme, $place) = $url =~ m{^(https?)://(unix:.*?:|[^/]+)}
        or croak qq(no URL "$url");

    return bless {
        timeout     => 30,
        connections => 0,
        tls         => $scheme eq 'https',
        place       => $place,
        %option,
    }, $class;
}

sub get  { my ($self, $uri, @how) = @_; $self->request(GET => $uri, @how) }

sub post {
    my ($self, $uri, $data, @how) = @_;

    return $self->request(POST => $uri, json => $data, @how);
}

sub request {
    my ($self, @what) = @_;

    return $self->start(@what)->finish;
}

sub start {
    my ($self, $method, $uri, %how) = @_;

    $self->_connect
        if !$self->{socket} || $self->{peer_closed} || $self->is_closed(0);

    $self->{answer} = LLM::HTTP::Answer->new($method);
    $self->{until}  = time + $self->{timeout};

    my @parts = $self->_request($method, $uri, %how);
    @parts = $self->_first($how{only}, @parts) if defined $how{only};
    @parts = map { ref $_ ? $_ : map { ($_, \$how{dribble}) } split //, $_ }
        @parts if $how{dribble};

    for my $part (@parts) {
        ref $part ? sleep $$part : $self->send($part);
    }
    return $self;
}

sub answer      { $_[0]{answer} }
sub connections { $_[0]{connections} }

sub finish {
    my $self = shift;

    my $answer = $self->{answer};
    1 while !$answer->is_over && $self->_read;

    $self->close if !$answer->complete || $answer->closes;
    return $answer;
}

sub read_until {
    my ($self, $pattern) = @_;

    my $answer = $self->{answer};
    while ($answer->body !~ $pattern) {
        return 0 if $answer->is_over || !$self->_read;
    }
    return 1;
}

# Reads while it writes: whoever does not read our body to its end may
# still have an answer.

sub send {
    my ($self, $bytes) = @_;

    $self->_connect unless $self->{socket};
    $self->{until} //= time + $self->{timeout};

    local $SIG{PIPE} = 'IGNORE';
    while (length $bytes && !$self->{peer_closed}) {
        my $sent = syswrite $self->{socket}, $bytes, PIECE;

        if (defined $sent) {
            substr $bytes, 0, $sent, '';
        } elsif ($self->_must_wait) {
            my $can = $self->_select(1) or return 0;
            $self->_take if $can->{read};
        } else {
            $self->{was_reset} = $!{ECONNRESET};
            last;
        }
    }
    return !length $bytes;
}

sub close {
    my $self = shift;

    my $socket = delete $self->{socket} or return;
    delete @$self{qw(peer_closed was_reset)};
    return $socket->close;
}

sub reset {
    my $self = shift;

    setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $self->{socket}->close(SSL_no_shutdown => 1) if $self->{tls};
    return $self->close;
}

sub shut { shutdown $_[0]{socket}, 1 }

sub is_closed {
    my ($self, $patience) = @_;

    return 1 unless $self->{socket};
    local $self->{until} = time + ($patience // $self->{timeout});
    local $self->{answer};
    while (!$self->{peer_closed}) {
        $self->_select or return 0;
        $self->_take;
    }
    return 1;
}

sub _request {
    my ($self, $method, $uri, %how) = @_;

    my $body = defined $how{json} ? $JSON->encode($how{json}) : $how{body};
    my @headers = ref $how{headers} eq 'HASH'
        ? %{ $how{headers} } : @{ $how{headers} // [] };

    my %given;
    my @lines;
    while (my ($name, $value) = splice @headers, 0, 2) {
        $given{ lc $name } = 1;
        push @lines, "$name: $value" if defined $value;
    }

    my %default = (
        host => $self->{place} =~ /^unix:/ ? 'localhost' : $self->{place},
        defined $how{json} ? ('content-type' => 'application/json') : (),
        $how{chunked}      ? ('transfer-encoding' => 'chunked')
        : defined $body    ? ('content-length'    => length $body) : (),
        $how{close}        ? (connection => 'close')               : (),
    );
    unshift @lines, map { "$_: $default{$_}" }
        grep { !$given{$_} } sort keys %default;

    my $version = $how{version} // '1.1';
    my $head = join "\r\n", "$method $uri HTTP/$version", @lines, '', '';

    return $head . ($body // '') unless $how{chunked};
    return $head,
        map({ ref $_ ? $_ : sprintf "%x\r\n%s\r\n", length $_, $_ }
            @{ $how{chunked} }),
        "0\r\n\r\n";
}

sub _first {
    my ($self, $size, @parts) = @_;

    return map {
        my $part = $_;
        if (!ref $part) {
            $part = substr $part, 0, $size;
            $size -= length $part;
        }
        ref $part || length $part ? $part : ();
    } @parts;
}

sub _connect {
    my $self = shift;

    $self->close;
    my ($path) = $self->{place} =~ /^unix:(.*):$/;
    my ($host, $port) = $self->{place} =~ /^\[?(.*?)\]?(?::(\d+))?$/;

    my $socket = defined $path
        ? IO::Socket::UNIX->new(Peer => $path)
        : IO::Socket::IP->new(
            PeerHost => $host,
            PeerPort => $port // ($self->{tls} ? 443 : 80),
            Timeout  => $self->{timeout},
        );
    $socket or croak "connect to $self->{place}: $!";

    $self->{socket} = $socket;
    $self->{connections}++;
    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1 if !defined $path;
    $self->_start_tls($host) if $self->{tls};
    $socket->blocking(0);
}

sub _start_tls {
    my ($self, $host) = @_;

    my $ca = $self->{ca};
    IO::Socket::SSL->start_SSL(
        $self->{socket},
        SSL_hostname        => $self->{sni} // '',
        SSL_verify_mode     => $ca ? 1 : 0,
        SSL_ca_file         => $ca,
        SSL_verifycn_name   => $self->{sni} // $host,
        SSL_verifycn_scheme => $ca ? 'http' : 'none',
        Timeout             => $self->{timeout},
    ) or croak "TLS with $self->{place}: $SSL_ERROR";
}

# waits for what there is to read; false when the time is over

sub _read {
    my $self = shift;

    return 0 if $self->{peer_closed};
    if (!$self->_select) {
        $self->{answer}->fail('timeout');
        return 0;
    }
    $self->_take;
    return 1;
}

# what may be done without waiting; false when the time is over

sub _select {
    my ($self, $for_writing) = @_;

    my $socket = $self->{socket};
    return { read => 1 } if $self->{tls} && $socket->pending;

    my $left = $self->{until} - time;
    my $in = '';
    vec($in, fileno $socket, 1) = 1;
    my $out = $for_writing ? $in : '';

    my $ready = select $in, $out, undef, $left > 0 ? $left : 0;
    return if $ready <= 0;
    return { read => vec $in, fileno $socket, 1 };
}

sub _take {
    my $self = shift;

    my $answer = $self->{answer};
    my $got = sysread $self->{socket}, my $bytes, PIECE;

    if ($got) {
        $answer->add($bytes) if $answer;
    } elsif (defined $got || !$self->_must_wait) {
        my $was_reset = $self->{was_reset} || !defined $got && $!{ECONNRESET};
        $self->{peer_closed} = 1;
        $answer->end($was_reset ? 'reset' : 'closed') if $answer;
    }
}

sub _must_wait {
    my $self = shift;

    return $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR}
        || $self->{tls} && ($SSL_ERROR == SSL_WANT_READ
            || $SSL_ERROR == SSL_WANT_WRITE);
}

sub has_h2 {
    my $version = `curl --version 2>/dev/null` // '';
    return $version =~ /\bHTTP2\b/;
}

sub h2 {
    my ($class, $url, %how) = @_;

    my $dir = File::Temp->newdir('llm-h2-XXXXXX', TMPDIR => 1);
    my $body = defined $how{json} ? $JSON->encode($how{json}) : $how{body};
    my %headers = (
        defined $how{json} ? ('content-type' => 'application/json') : (),
        %{ $how{headers} // {} },
    );

    my @command = (
        qw(curl --silent --globoff), '--max-time' => $how{timeout} // 30,
        $url =~ /^https/ ? ('--http2', $how{ca} ? ('--cacert' => $how{ca})
                                                : '--insecure')
                         : '--http2-prior-knowledge',
        '--dump-header' => "$dir/head", '--output' => "$dir/body",
        '--write-out'   => '%{http_version} %{time_total}',
        $how{method} ? ('--request' => $how{method}) : (),
        map({ ('--header' => "$_: $headers{$_}") } sort keys %headers),
    );
    if (defined $body) {
        _write_file("$dir/request", $body);
        push @command, '--data-binary' => "\@$dir/request";
    }

    open my $curl, '-|', @command, $url or croak "curl: $!";
    my ($version, $time) = split ' ', <$curl> // '';
    CORE::close $curl;

    return LLM::HTTP::Answer->from_curl(
        exit    => $? >> 8,
        version => $version,
        time    => $time,
        head    => _read_file("$dir/head"),
        body    => _read_file("$dir/body"),
    );
}

sub _write_file {
    my ($path, $bytes) = @_;

    open my $file, '>:raw', $path or croak "$path: $!";
    print {$file} $bytes;
    CORE::close $file;
}

sub _read_file {
    my $path = shift;

    open my $file, '<:raw', $path or return '';
    local $/;
    return <$file> // '';
}

1;
