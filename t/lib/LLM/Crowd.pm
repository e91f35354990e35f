package LLM::Crowd;

=head1 NAME

LLM::Crowd - callers and providers that do what LLM::Chaos has made up

=head1 SYNOPSIS

    my $crowd = LLM::Crowd->new(callers => 6);

    my $gw = LLM::Gateway->new(sources => $crowd->providers, ...);
    $crowd->send($gw, $chaos, 1 .. 200);
    until ($crowd->is_back) { ... }

    $crowd->results;        # { id, from, until, status, error, complaints }
    $crowd->weather($random, 'a', 'b');     # something for a provider
    $crowd->fair;                           # and its end

The callers are processes.  Each makes its share of the calls, one after the
other, and writes down what LLM::Oracle says of the answers.

=cut

use strict;
use warnings;

use Carp;
use File::Temp ();
use JSON::PP ();
use POSIX qw(WNOHANG);
use Time::HiRes qw(time);

use LLM::Caller;
use LLM::Chaos;
use LLM::Oracle;
use LLM::Provider;

my $JSON = JSON::PP->new->canonical->ascii;

sub new {
    my ($class, %option) = @_;

    return bless {
        callers => 6,
        names   => [qw(a b c d)],
        tls     => undef,
        dir     => File::Temp->newdir('llm-crowd-XXXXXX', TMPDIR => 1),
        pids    => [],
        %option,
    }, $class;
}

sub providers {
    my $self = shift;

    return $self->{providers} //= { map { $_ => $self->_provider($_) }
        @{ $self->{names} } };
}

# the last one speaks TLS

sub _provider {
    my ($self, $name) = @_;

    my %asked;
    my $is_last = $name eq $self->{names}[-1];

    return LLM::Provider->new(
        name => $name,
        tls  => $is_last ? $self->{tls} : undef,
        choose => sub {
            my $request = shift;
            my ($mark) = @{ $request->{headers}{ LLM::Chaos->HEADER } // [] };
            my ($seed, $id) = split /:/, $mark // '' or return {};
            return LLM::Provider::Answer->step(LLM::Chaos->new($seed)->step(
                $name, $id, ++$asked{$mark}, $request->{version}));
        },
    );
}

sub send {
    my ($self, $gw, $chaos, @ids) = @_;

    my $many = $self->{callers};
    for my $n (0 .. $many - 1) {
        my @share = @ids[ grep { $_ % $many == $n } 0 .. $#ids ] or next;

        defined(my $pid = fork) or croak "fork: $!";
        if ($pid) {
            push @{ $self->{pids} }, $pid;
            next;
        }

        $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP __DIE__ __WARN__);
        eval { $self->_work($gw, $chaos, $n, @share); 1 }
            or print STDERR "caller $n: $@";
        POSIX::_exit(0);
    }
    return $self;
}

sub _work {
    my ($self, $gw, $chaos, $number, @ids) = @_;

    open my $file, '>>', "$self->{dir}/$number" or die "$self->{dir}: $!";
    $file->autoflush;

    my $caller = LLM::Caller->new(url => $gw->url,
        h2 => $gw->nginx->url('h2'));
    for my $id (@ids) {
        my $call = $chaos->call($id);
        my $from = time;
        my $result = eval { $self->_result($caller, $call) }
            // { complaints => ["call $id: $@"] };
        print {$file} $JSON->encode(
            { id => $id, from => $from, until => time, %$result }), "\n";
    }
}

sub _result {
    my ($self, $caller, $call) = @_;

    my $answer = $caller->make($call);
    return {
        status     => $answer->status,
        error      => $answer->error,
        complaints => [ LLM::Oracle->answer($call, $answer) ],
    };
}

sub is_back {
    my $self = shift;

    local ($?, $!);
    @{ $self->{pids} } = grep { waitpid($_, WNOHANG) == 0 }
        @{ $self->{pids} };
    return !@{ $self->{pids} };
}

sub results {
    my $self = shift;

    return map { $JSON->decode($_) } map {
        open my $file, '<', $_ or die "$_: $!";
        <$file>;
    } glob "$self->{dir}/*";
}

# what happens to a provider as a whole

sub weather {
    my ($self, $r, @names) = @_;

    my $p = $self->providers->{ $r->pick(@names) };
    my $what = $r->weighted(fair => 4, refuse => 1, greet => 2, drop => 2);

    if    ($what eq 'refuse') { $p->refuse }
    elsif ($what eq 'greet')  { $p->greet($r->pick(qw(close reset hang))) }
    elsif ($what eq 'drop')   { $p->drop($r->pick(qw(idle all))) }
    else                      { $p->accept_again->greet('serve') }
}

sub fair {
    $_->accept_again->greet('serve') for values %{ $_[0]->providers };
}

# before another round

sub forget {
    my $self = shift;

    unlink glob "$self->{dir}/*";
    $_->forget for values %{ $self->{providers} // {} };
}

sub DESTROY {
    my $self = shift;

    local ($?, $!);
    kill KILL => @{ $self->{pids} };
}

1;
