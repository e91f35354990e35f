package Strangers;

# What strangers say to a gateway that did not ask for it in this way: orders
# of operators, and the answers of probes, of receivers of alerts and of name
# servers.  Each is a proper one that chance has damaged.

use strict;
use warnings;

use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use LLM::NameServer;
use LLM::Provider;
use LLM::Random;

use constant {
    ORDERS   => 60,
    PROBED   => 6,
    HOOKS    => 6,
    NAMED    => 6,
    PATIENCE => 40,
};

my %ADMIN = (
    open => 'open', close => 'auto', disable => 'disabled',
    observe => 'observe', auto => 'auto',
);

my @ORDERS = (
    '{"action":"open","ttl":"10m"}', '{"action":"close"}',
    '{"action":"disable","ttl":90.5}', '{"action":"observe","ttl":"1h 30m"}',
    '{"action":"auto"}', '{"action":"reset"}',
);

my @ANSWERS = (
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 103 Hints\r\nRetry-After-Ms: 9\r\n\r\n"
        . "HTTP/1.1 429 Slow\r\nX-Ms-Retry-After-Ms: 4\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n"
        . "2\r\n{}\r\n0\r\nRetry-After: 3\r\n\r\n",
    "HTTP/1.1 401 No\r\nContent-Type: application/json\r\n"
        . "Connection: close\r\n\r\n"
        . '{"error":{"code":"invalid_api_key","message":"no"}}',
    "HTTP/1.0 302 There\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
);

my @BYTES = (
    "\0", "\r", "\n", "\r\n\r\n", "\t", ':', ',', '"', '\\', '{', '}', '[',
    '\ud800', '\u0000', "\xff", "\xc0\x0c", "\x1b[31m", '-1', '1e999',
    '99999999999999999999', 'HTTP/1.1 ', 'x' x 9000, 'null', "\r\n x",
);

my ($provider, $hook, $dns);

# Returns what is wrong.

sub run {
    my ($class, $seed) = @_;

    $provider //= LLM::Provider->new(name => 'stranger');
    $hook     //= LLM::Provider->new(name => 'hook');
    $dns      //= LLM::NameServer->new;

    my $self = bless { wrong => [], seed => $seed }, $class;

    $self->prepare;
    $self->orders;
    $self->probes;
    $self->names;
    $self->hooks;
    $self->end;

    return @{ $self->{wrong} };
}

sub prepare {
    my $self = shift;

    my @providers = (good => '', down => 'circuit failure_threshold=1;');
    for my $i (0 .. PROBED - 1) {
        $self->{probe}[$i] = $self->damaged("probe $i", @ANSWERS);
        $provider->behave_at("/p$i/", { raw => $self->{probe}[$i] });
        push @providers, "p$i" => "endpoint @{[ $provider->url ]}/p$i/v1;"
            . 'probe interval=1s timeout=3s;';
    }

    my @http = "resolver @{[ $dns->address ]}; resolver_timeout 1s;";
    for my $i (0 .. HOOKS - 1) {
        $self->{hook}[$i] = $self->damaged("hook $i", @ANSWERS);
        $hook->behave_at("/h$i/", { raw => $self->{hook}[$i] });
        push @http, "llm_alert @{[ $hook->url ]}/h$i/s3cret interval=0;";
    }

    my %routes = (llm => 'good', down => 'down');
    for my $i (0 .. NAMED - 1) {
        my $name = "n$i";
        $dns->say("$name.test" => { a => ['127.0.0.1'], ttl => 1 });
        push @providers, $name =>
            "endpoint http://$name.test:@{[ $provider->port ]};";
        $routes{$name} = $name;
    }
    $provider->behave_at(qr{^/v1/}, 'ok');

    $self->{gw} = LLM::Gateway->new(
        zone      => '2m',
        providers => \@providers,
        routes    => \%routes,
        server    => 'location /llm/ { llm_api; }',
        http      => "@http",
        locations => { '/' => 'llm_pass llm;',
            map { ("/$_/" => "llm_pass $_;") } grep { $_ ne 'llm' }
                sort keys %routes },
    );
}

# one of these, with some damage, now and then with none

sub damaged {
    my ($self, $what, @proper) = @_;

    my $r = LLM::Random->new($self->{seed}, $what);
    my $text = $r->pick(@proper);
    my $times = $r->pick(0, 1, 1, 2, 3, 8);

    while ($times-- > 0) {
        my $at  = $r->below(1 + length $text);
        my $len = $r->pick(0, 1, 1, 2, $r->below(9));
        my $end = length($text) - $at;
        my $new = $r->pick('', chr $r->below(256), $r->pick(@BYTES),
            substr $text, $r->below(length($text) || 1), $r->below(40));
        substr $text, $at, $len < $end ? $len : $end, $new;
    }
    return $text;
}

# An order that is obeyed was one, and says what it did; whatever else leaves
# everything as it was.

sub orders {
    my $self = shift;

    my $client = LLM::HTTP->new($self->{gw}->url);
    my ($is, $lasting) = ('auto', 1);
    for my $i (1 .. ORDERS) {
        my $body = $self->damaged("order $i", @ORDERS);
        my $r = $client->request(POST => '/llm/providers/good', body => $body,
            headers => { 'content-type' => 'application/json' });
        my $said = eval { $r->json };
        my $wrong = sub { $self->wrong("order $i", $_[0], $body) };

        if (!ref $said || $r->body !~ /\A[\x20-\x7e\n]*\z/) {
            $wrong->('no answer in JSON: ' . ($r->status // $r->error));
            next;
        }

        if ($r->status != 200) {
            $wrong->($r->status) if $r->status !~ /^4(?:00|13)$/;
            $wrong->('no message') if !length $said->{error}{message};
            $wrong->("a proper order is refused: $said->{error}{message}")
                if grep { $_ eq $body } @ORDERS;
            next;
        }

        my $order = eval { JSON::PP->new->utf8->decode($body) };
        if (ref $order ne 'HASH' || $order->{action} ne $said->{action}
            || grep { !/^(?:action|ttl)$/ } keys %$order)
        {
            $wrong->('obeyed');
            next;
        }

        $wrong->("it was $said->{was}{admin}, not $is")
            if $lasting && $said->{was}{admin} ne $is;
        my $expected = $ADMIN{ $order->{action} } // $said->{was}{admin};
        $is = $said->{is}{admin};
        $wrong->("it is $is") if $is ne $expected;
        $lasting = !defined $said->{is}{ttl};
    }

    $client->request(POST => '/llm/providers/good', body => '{"action":"auto"}',
        headers => { 'content-type' => 'application/json' });
}

# A probe is as good as the status that stands in the answer.

sub probes {
    my $self = shift;

    for my $i (0 .. PROBED - 1) {
        my ($raw, $probe) = $self->{probe}[$i];
        my $wrong = sub { $self->wrong("probe $i", $_[0], $raw) };

        $self->{gw}->wait_for(sub {
            $probe = $self->{gw}->status("p$i")->{probe};
            return defined $probe->{result};
        }, PATIENCE) or $wrong->('is not over');

        my $result = $probe->{result} // 'none';
        my $status = $probe->{status};
        my $told   = defined $status
            && $raw =~ m{^HTTP/1\.[01] +$status}m;

        $wrong->("status $status") if defined $status && !$told;
        $wrong->("$result without a status")
            if $result ne 'failure' && !$told;
        $wrong->("$result with $status")
            if $told && ($result eq 'success') != (!$probe->{error}
                && $status >= 200 && $status < 300);
        $wrong->("$result with $status")
            if $result =~ /^(?:credential|throttle)$/ && $status < 400;
    }
}

# Where a name server's answer is none, the last good addresses are used on.

sub names {
    my $self = shift;

    my $gw = $self->{gw};
    my @bytes = map {
        my $question = pack 'C/a* C/a* x n2', "n$_", 'test', 1, 1;
        $self->damaged("name $_", pack('n5', 0x8180, 1, 1, 0, 0) . $question
            . pack('n n n N n/a*', 0xc00c, 1, 1, 1, "\x7f\0\0\1"));
    } 0 .. NAMED - 1;

    for my $i (0 .. NAMED - 1) {
        $gw->wait_for(sub { $gw->status("n$i")->{resolved} }, PATIENCE)
            or $self->wrong("name $i", 'was never good', '');
        $dns->say("n$i.test" => { bytes => $bytes[$i] });
    }

    for my $i (0 .. NAMED - 1) {
        my $before = $dns->queries("n$i.test");
        $gw->wait_for(sub { $dns->queries("n$i.test") > $before }, PATIENCE)
            or $self->wrong("name $i", 'is not looked up', $bytes[$i]);
    }

    for my $i (0 .. NAMED - 1) {
        my $is = $gw->status("n$i");
        $self->wrong("name $i", 'has no address', $bytes[$i])
            if !$is->{addresses};
        next if !$is->{dns}{error};

        my $status = $gw->ask("/n$i/v1/chat/completions")->status // 'none';
        $self->wrong("name $i", "the answer is $status", $bytes[$i])
            if $status ne 200;
    }
}

# Who did not say 2xx has not got it.

sub hooks {
    my $self = shift;

    my $gw = $self->{gw};
    $gw->provider('down')->behave(503);
    $gw->ask('/down/v1/chat/completions');

    my $alerts;
    $gw->wait_for(sub {
        $alerts = $gw->status->{alerts};
        return !grep { !$_->{delivered} && !$_->{dropped} && !$_->{failures} }
            @$alerts;
    }, PATIENCE) or $self->wrong('alerts', 'not all are over', '');

    for my $i (0 .. HOOKS - 1) {
        my $raw = $self->{hook}[$i];
        $self->wrong("hook $i", 'delivered', $raw)
            if $alerts->[$i]{delivered} && $raw !~ m{^HTTP/1\.[01] +2\d\d}m;
        $self->wrong("hook $i", 'not delivered', $raw)
            if !$alerts->[$i]{delivered} && grep { $_ eq $raw } $ANSWERS[0];
    }
}

# Nobody else has noticed, and nothing odd is in the log.

sub end {
    my $self = shift;

    my $gw = $self->{gw};
    my $status = $gw->ask->status // 'none';
    $self->wrong('a caller', "gets $status", '') if $status ne 200;

    for my $line (grep { /llm: / } split /\n/, $gw->nginx->error_log) {
        $self->wrong('the log', 'odd bytes', $line)
            if $line =~ /[^\x20-\x7e\t]/;
        $self->wrong('the log', 'a secret', $line) if $line =~ /s3cret/;
    }

    my ($alerts, $reports) = $gw->nginx->retire;
    $self->wrong('the end', $_, '') for @$alerts, grep { length } $reports;
}

sub wrong {
    my ($self, $who, $what, $bytes) = @_;

    $bytes =~ s/([^\x21-\x5b\x5d-\x7e ])/sprintf '\\x%02x', ord $1/ge;
    push @{ $self->{wrong} }, "$who: $what"
        . (length $bytes ? ': ' . substr $bytes, 0, 400 : '');
}

1;
