package LLM::Gateway;

=head1 NAME

LLM::Gateway - nginx with the module, and made-up providers behind it

=head1 SYNOPSIS

    use LLM::Gateway;

    my $gw = LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=2;', b => '' ],
    );
    $gw->provider('a')->behave(503);

    my $r = $gw->ask;
    is $r->status, 200;
    is $gw->logged->{llm_outcome}, 'failover';
    is $gw->moved, 'a failed=1, b successful=1';

=head1 METHODS

=over

=item new(...)

    providers => [ NAME => DIRECTIVES, ... ]    each has a made-up provider,
                    the key "key-NAME" and an "endpoint", unless it says so
    routes    => { llm => 'a b', ... }          all of them, in order
    locations => { '/' => DIRECTIVES }          "llm_pass llm;" where there
                                                is none
    server, http, main, events => DIRECTIVES    as they are
    listen    => 'reuseport'
    log       => [ 'llm_cost' ]     variables for logged, besides its own
    zone      => '1m'
    sources   => { NAME => LLM::Provider }      those that are special
    workers, master, daemon, user               see LLM::Nginx

It is started, unless C<start => 0>.

=item configure(...)

Writes another configuration: what is not named stays.

=item nginx, provider(NAME), url

=item ask([URI, [DATA]], ...), call(...), h2(...)

One call of a new caller: a completion of the model "m" where nothing is
said; the rest is as with LLM::HTTP's C<request>.  call does not wait for the
answer, but returns the LLM::HTTP that can C<finish>.  h2 is HTTP/2.

=item logged

What the access log says of the last of these calls, as soon as it is there:
status, uri and all C<llm_> variables.

=item calls

How many of them there were.

=item status([NAME])

What llm_status says, of one provider.

=item moved

Which counts of which providers have changed since it was asked last, as
text: C<a failed=1 stream_errors=1, b successful=1>.  Calls in flight are
waited for.  It is an assertion as well: that the sums hold.

=item wait_for(sub { ... }, [SECONDS])

Polls until the sub is true; false when the time, 30 seconds, is over.

=item done

Ends nginx and asserts what LLM::Nginx asserts.

=back

=cut

use strict;
use warnings;

use Test::Builder;
use Time::HiRes qw(sleep time);

use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;

use constant {
    CHAT     => '/v1/chat/completions',
    PATIENCE => 30,
    POLL     => 0.005,
};

my @VARIABLES = map { "llm_$_" } qw(
    provider model upstream_model attempts fallback reject stream outcome waited
);

my @CALLS = qw(successful failed throttled neutral);

my @COUNTS = (
    (map { "${_}_calls" } @CALLS, 'rejected', 'late'), 'stream_errors',
);

sub new {
    my ($class, %option) = @_;

    my $start = delete $option{start} // 1;
    my %nginx = map { exists $option{$_} ? ($_ => delete $option{$_}) : () }
        qw(workers master daemon user);

    my $self = bless {
        nginx  => LLM::Nginx->new(%nginx),
        source => delete $option{sources} // {},
        conf   => { zone => '1m' },
        before => {},
        calls  => 0,
    }, $class;

    $self->configure(%option);
    $self->start if $start;
    return $self;
}

sub nginx { $_[0]{nginx} }
sub url   { $_[0]{nginx}->url }
sub calls { $_[0]{calls} }

sub start { $_[0]{nginx}->start; $_[0] }
sub done  { $_[0]{nginx}->done }

sub provider {
    my ($self, $name) = @_;

    return $self->{source}{$name} //= LLM::Provider->new(name => $name);
}

sub configure {
    my ($self, %part) = @_;

    my $conf = $self->{conf} = { %{ $self->{conf} }, %part };
    $self->{nginx}->write_conf(
        main => $conf->{main} // '',
        events => $conf->{events} // '',
        http => join "\n", $self->_zone, $self->_providers, $self->_routes,
            $conf->{http} // '', $self->_server,
    );
    return $self;
}

sub _zone {
    my $self = shift;

    my $format = join ' ', 'status=$status uri=$uri',
        map { "$_=\$$_" } @VARIABLES, @{ $self->{conf}{log} // [] };
    return "llm_zone llm:$self->{conf}{zone};",
        "log_format llm '$format';";
}

sub _providers {
    my $self = shift;

    my @text;
    my @given = @{ $self->{conf}{providers} };
    while (my ($name, $directives) = splice @given, 0, 2) {
        my $own = join ' ',
            $directives =~ /\bendpoint / ? ()
                : 'endpoint ' . $self->provider($name)->url . ';',
            $directives =~ /\bapi_key / ? () : "api_key key-$name;";
        push @text, "llm_provider $name { $own $directives }";
    }
    return @text;
}

sub _routes {
    my $self = shift;

    my @given  = @{ $self->{conf}{providers} };
    my $routes = $self->{conf}{routes}
        // { llm => join ' ', @given[ grep { !($_ % 2) } 0 .. $#given ] };

    return map {
        my $uses = join ' ', map { 'llm_use ' . tr/:/ /r . ';' }
            split ' ', $routes->{$_};
        "upstream $_ { $uses keepalive 16; }";
    } sort keys %$routes;
}

sub _server {
    my $self = shift;

    my $conf      = $self->{conf};
    my $locations = $conf->{locations} // { '/' => '' };

    return 'server {',
        'listen 127.0.0.1:{{port}} ' . ($conf->{listen} // '') . ';',
        'listen 127.0.0.1:{{port:h2}} http2;',
        'access_log {{prefix}}/logs/access.log llm;',
        'location = /status { llm_status; access_log off; }',
        $conf->{server} // '',
        map({
            my $directives = $locations->{$_};
            my $pass = $directives =~ /\b(?:llm_pass|proxy_pass|return) /
                ? '' : 'llm_pass llm; ';
            "location $_ { $pass$directives }";
        } sort keys %$locations), '}';
}

sub ask { my $self = shift; $self->call(@_)->finish }

sub call {
    my ($self, $uri, $data, %how) = @_;

    my $method = delete $how{method} // 'POST';
    $how{json} = $data // { model => 'm' } if $method eq 'POST'
        && !defined $how{body} && !$how{chunked};

    $self->{calls}++;
    return LLM::HTTP->new($self->url)
        ->start($method => $uri // CHAT, close => 1, %how);
}

sub h2 {
    my ($self, $uri, $data, %how) = @_;

    $self->{calls}++;
    return LLM::HTTP->h2($self->{nginx}->url('h2') . ($uri // CHAT),
        json => $data // { model => 'm' }, %how);
}

sub logged {
    my $self = shift;

    my @lines;
    $self->wait_for(sub {
        @lines = $self->{nginx}->access_log =~ /(.*)\n/g;
        return @lines >= $self->{calls};
    }) or return {};

    return { $lines[-1] =~ /(\w+)=(\S*)/g };
}

sub status {
    my ($self, $name) = @_;

    my $status = LLM::HTTP->new($self->url)
        ->get('/status', close => 1)->json;
    return $status if !defined $name;

    my ($provider) = grep { $_->{name} eq $name } @{ $status->{providers} };
    return $provider;
}

sub moved {
    my $self = shift;

    my $status;
    $self->wait_for(sub {
        $status = $self->status;
        return !grep { $_->{in_flight} } @{ $status->{providers} };
    });

    my @wrong = map { _wrong_sums($_) } @{ $status->{providers} };
    my $test = Test::Builder->new;
    $test->ok(!@wrong, 'every call has its one verdict')
        or $test->diag(join "\n", @wrong);

    return join ', ', map { $self->_changes($_) } @{ $status->{providers} };
}

sub _wrong_sums {
    my $provider = shift;

    my $sum = 0;
    $sum += $provider->{"${_}_calls"} for @CALLS;

    return map { "$provider->{name}: $_" }
        $provider->{in_flight}
            ? "$provider->{in_flight} calls in flight" : (),
        $sum + $provider->{in_flight} != $provider->{total_calls}
            ? "$provider->{total_calls} calls, but $sum verdicts" : ();
}

sub _changes {
    my ($self, $provider) = @_;

    my $before = $self->{before}{ $provider->{name} } // {};
    $self->{before}{ $provider->{name} } = $provider;

    my @changes = map {
        my $more = $provider->{$_} - ($before->{$_} // 0);
        $more ? s/_calls$//r . "=$more" : ();
    } @COUNTS;
    return @changes ? join ' ', $provider->{name}, @changes : ();
}

sub wait_for {
    my ($self, $condition, $patience) = @_;

    my $deadline = time + ($patience // PATIENCE);
    until ($condition->()) {
        return 0 if time > $deadline;
        sleep POLL;
    }
    return 1;
}

1;
