package Page;

=head1 NAME

Page - what was seen of the faults, as the tables of docs/faults.md

=head1 SYNOPSIS

    my $text = Page->text([ $setting, [ $fault, $seen ], ... ], ...);
    Page->write($file, $text);
    Page->read($file);          # the text that is there

=cut

use strict;
use warnings;
use utf8;

use constant {
    BEGIN_MARK => "<!-- faults:begin -->\n",
    END_MARK   => "<!-- faults:end -->\n",
};

my @CALLER = (
    'Fault of `first`', 'Request', 'Status', 'Answered by', 'Attempts',
    'Tokens of 60', 'It ends with', '`$llm_outcome`',
);

my @PROVIDERS = (
    'Fault of `first`', 'Provider', 'Requests', 'Its answers', 'Its circuit',
    'Counted',
);

my @COUNTS = qw(
    successful failed throttled neutral rejected stream_errors
    unreadable_frames
);


sub text {
    my ($class, @parts) = @_;

    return join "\n", map { _part(@$_) } @parts;
}


sub write {
    my ($class, $file, $text) = @_;

    my $page = _slurp($file);
    my ($begin, $end) = (BEGIN_MARK, END_MARK);
    $page =~ s/\Q$begin\E.*\Q$end\E/$begin\n$text\n$end/s
        or die "$file has no place for the tables\n";

    open my $fh, '>:encoding(UTF-8)', $file or die "$file: $!\n";
    print $fh $page;
    close $fh or die "$file: $!\n";
}


sub read {
    my ($class, $file) = @_;

    my ($begin, $end) = (BEGIN_MARK, END_MARK);
    my ($text) = _slurp($file) =~ /\Q$begin\E\n(.*)\n\Q$end\E/s
        or die "$file has no tables\n";
    return $text;
}


sub _slurp {
    my $file = shift;

    open my $fh, '<:encoding(UTF-8)', $file or die "$file: $!\n";
    local $/;
    return scalar <$fh>;
}


sub _part {
    my ($setting, @seen) = @_;

    return "## $setting->{name}\n",
        "What the caller sees:\n",
        _table(\@CALLER, map { _named($_->[0], _calls($_->[1])) } @seen),
        "What the providers see:\n",
        _table(\@PROVIDERS,
            map { _named($_->[0], _providers($_->[1])) } @seen);
}


sub _table {
    my ($head, @rows) = @_;

    return join '', map { "$_\n" } _row(@$head), '|' . '---|' x @$head,
        map { _row(@$_) } @rows;
}


sub _row { '| ' . join(' | ', @_) . ' |' }


# the name of a fault stands in its first row

sub _named {
    my ($fault, @rows) = @_;

    my $name = $fault->{name};
    return map { my $row = [ $name, @$_ ]; $name = ''; $row } @rows;
}


# calls in a row that look alike are one row

sub _calls {
    my $seen = shift;

    my ($number, @rows) = 0;
    for my $call (@{ $seen->{calls} }) {
        my @cells = _call($call);
        $number++;

        if (@rows && "@{ $rows[-1]{cells} }" eq "@cells") {
            $rows[-1]{last} = $number;
        } else {
            push @rows, {
                first => $number, last => $number, cells => \@cells,
            };
        }
    }

    return map {
        my ($first, $last) = @$_{qw(first last)};
        [ $first == $last ? $first : "$first–$last", @{ $_->{cells} } ];
    } @rows;
}


sub _call {
    my $call = shift;

    return $call->{status}, map({ $_ // '—' } @$call{qw(provider attempts)}),
        $call->{tokens}, _end($call), $call->{outcome};
}


sub _end {
    my $call = shift;

    return "the error `$call->{code}`" if defined $call->{code};

    my $end = $call->{error}    ? 'an error event'
            : $call->{done}     ? '`[DONE]`'
            : $call->{finished} ? '`finish_reason`'
            :                     'nothing';
    return $call->{complete} ? $end : "$end, and a closed connection";
}


sub _providers {
    my $seen = shift;

    return map {
        my $provider = $_;
        [
            $provider->{name},
            scalar @{ $provider->{requests} },
            _answers($provider) || '—',
            join(' → ', @{ $provider->{circuit} }),
            join(', ', map {
                my $count = $provider->{counts}{$_};
                $count ? "$_ $count" : ();
            } @COUNTS) || '—',
        ];
    } @{ $seen->{providers} };
}


sub _answers {
    my $provider = shift;

    my @answers;
    for my $i (0 .. $#{ $provider->{requests} }) {
        my $answer = _answer($provider->{answers}[$i],
            $provider->{requests}[$i]);

        if (@answers && $answers[-1]{is} eq $answer) {
            $answers[-1]{times}++;
        } else {
            push @answers, { is => $answer, times => 1 };
        }
    }

    return join ', ', map {
        $_->{times} > 1 ? "$_->{times} × $_->{is}" : $_->{is}
    } @answers;
}


sub _answer {
    my ($step, $outcome) = @_;

    my $breaks = $step->{reset} // $step->{stall} // '';
    my $status = $breaks eq 'start' ? 'nothing' : $step->{status} // 200;

    return $outcome eq 'reset' ? "$status, then it resets"
         : $outcome eq 'answered' ? $status
         : "$status; the gateway leaves";
}

1;
