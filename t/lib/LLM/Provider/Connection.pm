package LLM::Provider::Connection;

=head1 NAME

LLM::Provider::Connection - one client of a made-up provider

=head1 SYNOPSIS

    my $c = LLM::Provider::Connection->new($server, $socket, $number);

    $c->wants_read; $c->wants_write; $c->wakes_at;   # for select
    $c->run($readable, $writable);                   # never blocks
    $c->is_over;

A connection goes through the states

    handshake -> head -> body -> answer -> head (kept alive)
                                        -> drain -> over

and "mute", in which nothing is read or said until the client leaves.

=cut

use strict;
use warnings;

use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Socket::SSL qw($SSL_ERROR SSL_WANT_READ SSL_WANT_WRITE);
use List::Util qw(min);
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

use LLM::Provider::Answer;

use constant {
    PIECE      => 65536,
    HEAD_PIECE => 2048,
};

sub new {
    my ($class, $server, $socket, $number, $greeting) = @_;

    my $self = bless {
        server => $server,
        socket => $socket,
        fd     => fileno $socket,
        number => $number,
        in     => '',
        out    => '',
        served => 0,
        state  => 'head',
    }, $class;

    $socket->blocking(0);
    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;

    return $self->_mute if $greeting eq 'hang';
    return $self->_reset if $greeting eq 'reset';
    return $self->_close if $greeting eq 'close';

    $self->_start_tls if $server->{tls};
    return $self;
}

sub is_over     { $_[0]{state} eq 'over' }
sub is_idle     { $_[0]{state} eq 'head' && $_[0]{in} eq '' }
sub wants_write { $_[0]{wants_write} || length $_[0]{out} }

sub wants_read {
    my $self = shift;

    return 0 if $self->{read_again} || $self->{unread};
    return !$self->{wants_write} || $self->{state} ne 'handshake';
}

sub wakes_at {
    my $self = shift;

    return min grep { defined } @$self{qw(read_again pause_until idle_until)};
}

sub run {
    my ($self, $readable, $writable) = @_;

    if ($self->{state} eq 'handshake') {
        $self->_handshake if $readable || $writable;
        return if $self->{state} ne 'head';
        $readable = 1;
    }

    my $may_read = $self->_is_due('read_again');
    $self->_read if $readable || $may_read;
    $self->_write;
    $self->_close if $self->_is_due('idle_until') && $self->is_idle;
    return;
}

# true once, when the moment of this name has come

sub _is_due {
    my ($self, $name) = @_;

    return 0 if !$self->{$name} || $self->{$name} > time;
    delete $self->{$name};
    return 1;
}

sub _start_tls {
    my $self = shift;

    $self->{state} = 'handshake';
    IO::Socket::SSL->start_SSL(
        $self->{socket},
        SSL_server         => 1,
        SSL_reuse_ctx      => $self->{server}{tls},
        SSL_startHandshake => 0,
    ) or $self->_reset;
}

sub _handshake {
    my $self = shift;

    delete $self->{wants_write};
    if ($self->{socket}->accept_SSL) {
        $self->{sni}   = $self->{socket}->get_servername;
        $self->{state} = 'head';
        return;
    }

    if ($SSL_ERROR == SSL_WANT_WRITE) {
        $self->{wants_write} = 1;
    } elsif ($SSL_ERROR != SSL_WANT_READ) {
        $self->{server}{handshake_failures}++;
        $self->_close;
    }
}

sub _read {
    my $self = shift;

    while ($self->wants_read && !$self->is_over) {
        my $got = sysread $self->{socket}, $self->{in}, $self->_piece,
            length $self->{in};

        if (!$got) {
            return if !defined $got && $self->_must_wait;
            return $self->_gone;
        }

        $self->{in} = '' if $self->{state} =~ /^(?:mute|drain)$/;
        $self->{read_again} = time + $got / $self->{rate} if $self->{rate};
        $self->_parse;
    }
}

# Little of a body must have been read when its header says how to read it.

sub _piece {
    my $self = shift;

    return $self->{rate}            ? int($self->{rate} / 100) || 1
         : $self->{state} eq 'head' ? HEAD_PIECE
         :                            PIECE;
}

sub _must_wait {
    my $self = shift;

    return $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR}
        || ref $self->{socket} eq 'IO::Socket::SSL'
        && ($SSL_ERROR == SSL_WANT_READ || $SSL_ERROR == SSL_WANT_WRITE);
}

sub _parse {
    my $self = shift;

    $self->_parse_head if $self->{state} eq 'head' && length $self->{in};
    $self->_parse_body if $self->{state} eq 'body';
    $self->_discard    if $self->{discard};
}

sub _parse_head {
    my $self = shift;

    if (my $how = $self->{stale}) {
        $self->{server}{stale}++;
        return $how eq 'reset' ? $self->_reset : $self->_close;
    }

    return unless $self->{in} =~ s/^(.*?\r\n)\r\n//s;
    delete $self->{idle_until};

    my $request = $self->{request} = _request($1);
    $request->{connection} = $self->{number};
    $request->{sni}        = $self->{sni};
    $self->{served}++;
    $self->{state} = 'body';

    my $step = $self->{step} = $self->{server}->next_step($request);
    $self->{rate} = $step->{read_rate} if $step->{read_rate};

    my %header = map { $_ => join ',', @{ $request->{headers}{$_} } }
        keys %{ $request->{headers} };
    $self->{chunked} = ($header{'transfer-encoding'} // '') =~ /\bchunked\b/i;
    $self->{length}  = $header{'content-length'} // 0;

    if ($step->{early} || $step->{unread}) {
        $request->{cut} = 1;
        $self->{$step->{unread} ? 'unread' : 'discard'} = 1;
        return $self->_start_answer;
    }

    $self->{out} .= "HTTP/1.1 100 Continue\r\n\r\n"
        if lc($header{expect} // '') eq '100-continue';
}

sub _request {
    my $raw = shift;

    my ($first, @lines) = split /\r\n/, $raw;
    my ($method, $uri, $version)
        = $first =~ m{^(\S+) (\S+) HTTP/(\d\.\d)$};

    my %headers;
    for (@lines) {
        my ($name, $value) = /^([^:]+):[ \t]*(.*?)[ \t]*$/ or next;
        push @{ $headers{ lc $name } }, $value;
    }

    return {
        time     => time,
        raw_head => $raw,
        method   => $method  // '',
        uri      => $uri     // '',
        version  => $version // '1.0',
        headers  => \%headers,
        body     => '',
        outcome  => 'waiting',
        sent     => 0,
    };
}

sub _parse_body {
    my $self = shift;

    $self->_start_answer if $self->_take_body;
}

# moves what has arrived into the request's body; true when it is whole

sub _take_body {
    my $self = shift;

    return $self->_take_chunks if $self->{chunked};

    my $body = \$self->{request}{body};
    $$body .= substr $self->{in}, 0, $self->{length} - length $$body, '';
    return length $$body == $self->{length};
}

sub _take_chunks {
    my $self = shift;

    while ($self->{in} =~ /^([0-9a-fA-F]+)[^\r\n]*\r\n/) {
        my ($size, $start) = (hex $1, $+[0]);
        return if length $self->{in} < $start + $size + 2;

        $self->{request}{body} .= substr $self->{in}, $start, $size;
        substr $self->{in}, 0, $start + $size + 2, '';
        return 1 if !$size;
    }
    return;
}

sub _discard {
    my $self = shift;

    delete $self->{discard} if $self->_take_body;
}

sub _start_answer {
    my $self = shift;

    my $request = $self->{request};
    my $id      = $self->{server}->log($request);
    my $answer  = LLM::Provider::Answer->new($self->{step}, $request, $id);

    $self->{state} = 'answer';
    $self->{parts} = [ $answer->parts ];
    $self->{end}   = $answer->end;
    delete $self->{rate} unless $self->{discard};
}

sub _write {
    my $self = shift;

    while (!$self->is_over) {
        return if length $self->{out} && !$self->_flush;

        return if $self->{pause_until} && !$self->_is_due('pause_until');
        return if $self->{state} ne 'answer';
        my $part = shift @{ $self->{parts} };
        if (!$part) {
            $self->_finish;
            next;
        }

        my ($kind, $what) = @$part;
        if ($kind eq 'wait') {
            $self->{pause_until} = time + $what;
        } else {
            $self->{out} = $what;
        }
    }
}

# true when everything has gone out

sub _flush {
    my $self = shift;

    while (length $self->{out}) {
        my $sent = syswrite $self->{socket}, $self->{out}, PIECE;

        if (!defined $sent) {
            $self->_gone if !$self->_must_wait;
            return 0;
        }
        substr $self->{out}, 0, $sent, '';
        $self->{request}{sent} += $sent if $self->{request};
    }
    return 1;
}

sub _finish {
    my $self = shift;

    my $end     = $self->{end};
    my $request = $self->{request};

    if ($end eq 'stall') {
        $request->{outcome} = 'stalled';
        return $self->_mute;
    }
    if ($end eq 'reset') {
        $request->{outcome} = 'reset';
        return $self->_reset;
    }
    if ($end eq 'close') {
        $request->{outcome} = $self->{step}{close} ? 'closed' : 'answered';
        return $self->_close;
    }

    $request->{outcome} = 'answered';
    return $self->_close
        if $self->{unread} || $self->{discard}
        || $self->{served} >= $self->{server}{keepalive_requests};

    $self->{state} = 'head';
    $self->{stale} = $self->{step}{stale};
    my $idle = $self->{step}{hang_up} // $self->{server}{keepalive_timeout};
    $self->{idle_until} = time + $idle if defined $idle;
    $self->_parse;
}

sub _mute {
    my $self = shift;

    $self->{state} = 'mute';
    $self->{in}    = '';
    return $self;
}

# the client has closed its end

sub _gone {
    my $self = shift;

    my $request = $self->{request};
    $request->{outcome} = 'gone'
        if $request && $request->{outcome} =~ /^(?:waiting|stalled)$/;
    $self->{server}{aborted}++ if $self->{state} eq 'body';
    $self->{state} = 'drain';
    $self->_over;
}

sub _reset {
    my $self = shift;

    setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    return $self->_over(rude => 1);
}

# A close while the client still sends would become a reset, which might
# destroy the answer on its way: then only our end is closed.

sub _close {
    my $self = shift;

    if ($self->{unread} || $self->{discard}) {
        delete @$self{qw(unread discard rate read_again)};
        $self->{state} = 'drain';
        shutdown $self->{socket}, 1;
        return $self;
    }
    return $self->_over;
}

sub _over {
    my ($self, %option) = @_;

    my $notify = !$option{rude} && ($self->{step}{close_notify} // 1);
    if (ref $self->{socket} eq 'IO::Socket::SSL') {
        $self->{socket}->close(SSL_no_shutdown => !$notify);
    } else {
        close $self->{socket};
    }

    $self->{state} = 'over';
    delete @$self{qw(read_again pause_until idle_until wants_write)};
    $self->{out} = '';
    return $self;
}

# ends the connection from outside, whatever it is doing

sub drop {
    my $self = shift;

    if (my $request = $self->{request}) {
        $request->{dropped} = 1;
        $request->{outcome} = 'reset' if $request->{outcome} eq 'waiting';
    }
    $self->_reset;
}

1;
