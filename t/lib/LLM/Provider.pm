package LLM::Provider;

=head1 NAME

LLM::Provider - a made-up LLM provider that does what a test tells it to

=head1 SYNOPSIS

    use LLM::Provider;

    my $p = LLM::Provider->new(name => 'openai');
    $p->url;                              # http://127.0.0.1:PORT
    $p->behave(500, { status => 429, headers => { 'retry-after' => 2 } },
        'ok');                            # the last step repeats
    ...
    $p->wait_requests(3);
    my ($first) = $p->requests;
    is $first->{headers}{authorization}[0], 'Bearer key';
    is $first->{body}, '{"model":"m"}';

It speaks raw HTTP/1.1 and so has every byte and every moment in its hand.

=head1 THE PROVIDER

=over

=item new(name => NAME, ...)

    listen => '::1' | 'unix'        else 127.0.0.1
    port   => NUMBER                else one that is free
    tls    => LLM::TLS object       one certificate for each of its names,
                                    chosen by SNI; the first without SNI
    tls    => { cert => FILE, key => FILE }
    keepalive_requests => N         closes a connection after N requests,
                                    without a word
    keepalive_timeout  => SECONDS   closes an idle connection after that
    receive_buffer     => BYTES     small, so that a client feels back
                                    pressure (read_rate, unread)
    choose             => CODE      called with each request when its header
                                    is there, in the process of the provider:
                                    returns the step, in the place of behave

=item port, address (HOST:PORT), url, name, socket (a unix path)

=item client(...)

A new LLM::HTTP that talks to it directly, with these options.

=item behave(STEP, ...)

What the next answers are, from now on.  The last step repeats.  A request
takes its step when its header has arrived.

=item behave_at(URI, STEP, ...)

The same for the requests whose URI matches: a string is a part of it, or
a regular expression.

=item requests

Every request so far, in the order of their answers: connection (its
number, from 1 and never used again), time, raw_head, method, uri, version,
headers (lower-case name => [values]), body, sni, sent (bytes of the
answer), cut (answered before its body was there), dropped (the last of a
connection that drop has reset), and outcome:

    waiting     being answered
    answered    to the end, as far as the step goes
    closed, reset, stalled      as the step says
    gone        the client closed before the answer was done

A request whose body never became whole is none; stats->{aborted} counts
those.

=item connections, stats

stats: requests, connections, open, idle, stale, aborted, and
handshake_failures.

=item wait_requests(N, [SECONDS]), wait_outcome(OUTCOME, [SECONDS])

=item wait_for(sub { ... }, [SECONDS])

Poll until at least N requests are there, or one has this outcome, or the
sub, called with the provider, returns true; false after 30 seconds.

=item forget

Forgets requests and counts; behaviour and connections stay.

=item refuse, deafen, accept_again

Connects are refused; or hang without an answer, as behind a firewall; or
succeed again.  The port stays the same, open connections stay open.

=item greet(HOW)

What new connections meet: C<serve>, C<close>, C<reset>, C<hang> (nothing
is read or said, no TLS handshake is made).

=item drop([idle])

Resets all connections, or those that are kept alive.

=item stop

Ends the process; also when the object goes.

=back

=head1 STEPS

A status, or C<ok>, C<reset>, C<close>, C<hang>, or a hash of the following.

What is answered:

    status => 429               with an error body in the path's dialect:
    code, type, message =>      what it says
    reason => 'Because'
    headers => { name => value } or [ name => value, ... ]; they win over
                                ours, undef removes
    header_lines => ['bare']    further lines, as they are
    head => BYTES               the whole header instead
    interim => [103, BYTES]     1xx answers before it
    content_type => TYPE
    body => BYTES or structure  (JSON)
    framing => 'length' | 'chunked' | 'close'
    connection => 'close'

Without a body it is a completion for the path: chat, completions,
responses, messages, embeddings, models; as a stream where the request says
"stream":true.

    form => 'messages', stream => 0 or 1
    tokens => 3, text => ['one ', 'two']
    kind => 'text' | 'tool' | 'reasoning' | 'refusal'
    input_tokens => 7, output_tokens => N
    usage => 1                  also unasked; 0: never
    pings => 2                  comments before the first token
    malformed => N              an unreadable event after N tokens,
    malformed_frame => BYTES    this one
    error => N                  an error event after N tokens, then the end
                                (code, type, message)
    done => 0                   no [DONE]
    finish => 0                 ends properly, but for finish_reason, usage
                                and [DONE]
    events => [ BYTES, \0.1 ]   the whole stream; a reference is a pause

When:

    delay => 0.2                before the first byte
    first => 0.2                before the first token
    pace => 0.01                between tokens
    dribble => 0.001            between single bytes of the header
    pieces => 5, gap => 0.001   the whole answer in pieces of 5 bytes
    early => 1                  before the request's body was read
    unread => 1                 the body is never read
    read_rate => BYTES          a second, of the body

Where it breaks; "before" is as far as the client sees:

    reset => PLACE              TCP reset
    close => PLACE              end of the connection
    stall => PLACE              silence, until the client leaves

    PLACE: start, header, N tokens, N bytes, N body bytes, end

    close_notify => 0           a TLS connection ends without it
    hang_up => SECONDS          closes the idle connection after the answer
    stale => 'close'|'reset'    closes it as soon as the next request comes;
                                that one is in stats->{stale} alone

    raw => BYTES or [ BYTES, \0.1, ... ]    anything at all, then close
                                            (or stall => 'end')
    times => N                  this step for N requests

=cut

use strict;
use warnings;

use Carp;
use File::Temp ();
use IO::Handle;
use IO::Socket::SSL ();
use POSIX ();
use Socket qw(
    AF_UNIX SOCK_STREAM PF_UNSPEC SOL_SOCKET SO_RCVBUF pack_sockaddr_un
);
use Time::HiRes qw(time sleep);

use LLM::HTTP;
use LLM::Port;
use LLM::Provider::Answer;
use LLM::Provider::Message qw(read_message write_message);
use LLM::Provider::Server;

use constant {
    PATIENCE => 30,
    POLL     => 0.005,
};

sub new {
    my ($class, %option) = @_;

    my $self = bless {
        name  => delete $option{name} // 'provider',
        tls   => delete $option{tls},
        owner => $$,
    }, $class;

    my $listen = delete $option{listen} // '127.0.0.1';
    if ($listen eq 'unix') {
        $self->{dir} = File::Temp->newdir('llm-unix-XXXXXX', TMPDIR => 1);
        chmod 0755, "$self->{dir}";
        $self->{socket} = "$self->{dir}/$self->{name}.sock";
    } else {
        $self->{port} = LLM::Port->new($listen, delete $option{port});
    }

    $self->_start(%option);
    return $self;
}

sub name   { $_[0]{name} }
sub port   { $_[0]{port}->number }
sub socket { $_[0]{socket} }

sub address {
    my $self = shift;

    return $self->{port} ? $self->{port}->authority : "unix:$self->{socket}";
}

sub url {
    my $self = shift;

    my $scheme = $self->{tls} ? 'https' : 'http';
    my $end    = $self->{port} ? ''     : ':';
    return "$scheme://" . $self->address . $end;
}

sub client {
    my ($self, @option) = @_;

    return LLM::HTTP->new($self->url, @option);
}

sub behave {
    my ($self, @steps) = @_;

    return $self->behave_at('', @steps);
}

sub behave_at {
    my ($self, $uri, @steps) = @_;

    my $pattern = ref $uri ? "$uri" : quotemeta $uri;
    $self->_ask(behave => $pattern,
        map { LLM::Provider::Answer->step($_) } @steps);
    return $self;
}

sub requests     { $_[0]->_ask('requests') }
sub stats        { ($_[0]->_ask('stats'))[0] }
sub connections  { $_[0]->stats->{connections} }
sub forget       { $_[0]->_ask('forget');       $_[0] }
sub refuse       { $_[0]->_ask('refuse');       $_[0] }
sub accept_again { $_[0]->_ask('accept_again'); $_[0] }
sub deafen       { $_[0]->_ask('deafen');       $_[0] }
sub drop         { $_[0]->_ask(drop => $_[1] // 'all'); $_[0] }

sub greet {
    my ($self, $how) = @_;

    $how =~ /^(?:serve|close|reset|hang)$/ or croak qq(no greeting "$how");
    $self->_ask(greet => $how);
    return $self;
}

sub wait_requests {
    my ($self, $count, $patience) = @_;

    return $self->wait_for(sub { $_[0]->stats->{requests} >= $count },
        $patience);
}

sub wait_outcome {
    my ($self, $outcome, $patience) = @_;

    return $self->wait_for(
        sub { grep { $_->{outcome} eq $outcome } $_[0]->requests },
        $patience,
    );
}

sub wait_for {
    my ($self, $condition, $patience) = @_;

    my $deadline = time + ($patience // PATIENCE);
    until ($condition->($self)) {
        return 0 if time > $deadline;
        sleep POLL;
    }
    return 1;
}

sub stop {
    my $self = shift;

    my $pid = delete $self->{pid} or return;
    return if $self->{owner} != $$;

    local ($?, $!, $@);
    eval { $self->_ask('stop') };
    close delete $self->{control};
    waitpid $pid, 0;
    return;
}

sub DESTROY { $_[0]->stop }

sub _start {
    my ($self, %option) = @_;

    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC
        or croak "socketpair: $!";

    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        $SIG{PIPE} = 'IGNORE';
        $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP __DIE__ __WARN__);
        eval {
            close $ours;
            LLM::Provider::Server->new(
                %option,
                name    => $self->{name},
                tls     => scalar $self->_tls_context,
                control => $theirs,
                listen  => sub { $self->_listen($option{receive_buffer}, @_) },
                plug    => sub { $self->_plug },
            )->serve;
            1;
        } or print STDERR "provider $self->{name}: $@";
        POSIX::_exit(0);
    }

    close $theirs;
    @$self{qw(pid control)} = ($pid, $ours);
    $self->stats;
}

sub _listen {
    my ($self, $buffer, $backlog) = @_;

    my $listener = $self->{port}
        ? $self->{port}->listen($backlog)
        : _listen_unix($self->{socket}, $backlog);
    setsockopt $listener, SOL_SOCKET, SO_RCVBUF, $buffer if $buffer;
    return $listener;
}

sub _listen_unix {
    my ($path, $backlog) = @_;

    unlink $path;
    CORE::socket my $socket, AF_UNIX, SOCK_STREAM, 0 or die "socket: $!\n";
    bind $socket, pack_sockaddr_un($path) or die "bind $path: $!\n";
    listen $socket, $backlog or die "listen: $!\n";
    chmod 0777, $path;
    return $socket;
}

# a connect to ourselves, and whether it succeeded at once

sub _plug {
    my $self = shift;

    CORE::socket my $socket, $self->{port}->family, SOCK_STREAM, 0
        or die "socket: $!\n";
    $socket->blocking(0);
    connect $socket, $self->{port}->sockaddr;

    vec(my $writable = '', fileno $socket, 1) = 1;
    return select(undef, $writable, undef, 0.02) > 0, $socket;
}

sub _tls_context {
    my $self = shift;

    my $tls = $self->{tls} or return;

    my (%cert, %key);
    if (ref $tls eq 'HASH') {
        ($cert{''}, $key{''}) = @$tls{qw(cert key)};
    } else {
        for my $name ($tls->names, '') {
            $cert{$name} = $tls->cert($name eq '' ? undef : $name);
            $key{$name}  = $tls->key($name eq '' ? undef : $name);
        }
    }

    return IO::Socket::SSL::SSL_Context->new(
        SSL_server    => 1,
        SSL_cert_file => \%cert,
        SSL_key_file  => \%key,
    ) || die "TLS: $IO::Socket::SSL::SSL_ERROR\n";
}

sub _ask {
    my ($self, @message) = @_;

    croak "provider $self->{name} was stopped" unless $self->{control};
    local $SIG{PIPE} = 'IGNORE';
    write_message($self->{control}, \@message);
    my $reply = read_message($self->{control})
        or croak "provider $self->{name} has died";
    return @$reply;
}

1;
